# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from bundles import BundleUnderTest
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from trial import TRIAL_TRAINING

from endofm_monai.apps.sharing.federated import ROUND, FederatedClient, initial_network

METRICS = {
    "endofm_pretraining": "knn_accuracy",
    "endofm_polyp_classification": "score",
    "endofm_polyp_segmentation": "dice",
    "endofm_polyp_detection": "ap50",
}
JOB = Path(__file__).parents[2] / "scripts" / "federated" / "job.py"
Weights = dict[str, torch.Tensor]


def make_client(name: str, datalist: Path, folder: Path, **overrides: Any) -> MonaiAlgo:
    """A client of MONAI's, with its default configs."""
    settings = {
        **TRIAL_TRAINING[name],
        "dataset_dir": str(datalist.parent),
        "datalist": str(datalist),
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "eval"),
        "epochs": 2,
        **overrides,
    }
    client = MonaiAlgo(
        bundle_root=str(BundleUnderTest(name).folder), train_kwargs=dict(settings), eval_kwargs=dict(settings)
    )
    client.initialize({ExtraItems.CLIENT_NAME: folder.name})
    return client


def weights_of(client: MonaiAlgo) -> Weights:
    return {name: value.cpu().clone() for name, value in client.trainer.network.state_dict().items()}


@pytest.mark.parametrize("name", METRICS)
def test_client_trains_two_rounds_and_evaluates_the_global_weights(name, trial_datalist, tmp_path):
    client = make_client(name, trial_datalist, tmp_path)
    first = client.trainer
    client.initialize({ExtraItems.CLIENT_NAME: "again"})
    assert type(client.trainer) is type(first)
    weights = weights_of(client)
    for number in (1, 2):
        client.train(ExchangeObject(weights=weights))
        update = client.get_weights()
        assert update.weight_type == WeightType.WEIGHT_DIFF
        assert update.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] > 0
        assert client.trainer.state.epoch == number
        assert any(difference.abs().max() > 0 for difference in update.weights.values())
        for key, value in client.trainer.network.state_dict().items():
            torch.testing.assert_close(weights[key] + update.weights[key], value.cpu())
        weights = {key: value + update.weights[key] for key, value in weights.items()}

    marked = {key: value + 0.5 if value.is_floating_point() else value for key, value in weights.items()}
    metrics = client.evaluate(ExchangeObject(weights=marked)).metrics
    assert 0 <= metrics[METRICS[name]] <= 1
    for key, value in client.evaluator.network.state_dict().items():
        assert torch.equal(value, marked[key]), f"{key} was not what the server sent"
    client.finalize()


@pytest.mark.parametrize("name", [name for name in METRICS if name != "endofm_pretraining"])
def test_client_gives_its_best_model(name, trial_datalist, tmp_path):
    client = make_client(name, trial_datalist, tmp_path)
    client.model_filepaths[ModelType.BEST_MODEL] = str(tmp_path / "models" / "model.pt")
    client.train(ExchangeObject(weights=weights_of(client)))
    best = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL})
    assert best.weight_type == WeightType.WEIGHTS
    assert best.weights.keys() == client.trainer.network.state_dict().keys()


def test_pretraining_aggregates_student_and_teacher(trial_datalist, tmp_path):
    """The mean of the clients' teachers is what one update by the mean of their students would have given."""
    momentum = 0.5
    name = "endofm_pretraining"
    fast = {"teacher_momentum": momentum, "base_learning_rate": 1.0}
    clients = [make_client(name, trial_datalist, tmp_path / str(n), seed=n, **fast) for n in (0, 1)]
    start = weights_of(clients[0])
    for client in clients:
        client.train(ExchangeObject(weights=dict(start)))
    results = [client.get_weights().weights for client in clients]
    assert not torch.equal(results[0]["student.backbone.norm.weight"], results[1]["student.backbone.norm.weight"])
    mean = {key: start[key] + (results[0][key] + results[1][key]) / 2 for key in start}
    assert clients[0].trainer.state.iteration == 1  # two clips, a batch of two: one update of the teacher
    parameters = {key for key, _ in clients[0].trainer.network.named_parameters()}
    for key in (key for key in parameters if key.startswith("teacher.")):
        student = key.replace("teacher.", "student.", 1)
        torch.testing.assert_close(mean[key], momentum * start[key] + (1 - momentum) * mean[student])

    clients[0].evaluate(ExchangeObject(weights=mean))
    for key, value in clients[0].evaluator.network.state_dict().items():
        assert key.startswith("teacher.backbone.")
        assert torch.equal(value.cpu(), mean[key])


def federate(name: str, datalist: Path, output: Path, site: str, restart: bool, weights: Weights) -> list[Weights]:
    """What a site gives after each of two rounds that begin with the same weights, as no server would give them."""
    settings = {**TRIAL_TRAINING[name], "dataset_dir": str(datalist.parent), "datalist": str(datalist), "epochs": 2}
    client, updates = None, []
    for number in (0, 1):
        if client is None or restart:
            client = FederatedClient(BundleUnderTest(name).folder, output, **settings)
            client.initialize({ExtraItems.CLIENT_NAME: site})
        client.train(ExchangeObject(weights=weights), {ROUND: number})
        assert client.trainer.state.epoch == number + 1
        updates.append(weights_of(client))
    return updates


@pytest.mark.parametrize("name", ["endofm_pretraining", "endofm_polyp_classification"])
def test_a_site_whose_process_restarts_goes_on_as_if_it_had_not(name, trial_datalist, tmp_path):
    settings = {**TRIAL_TRAINING[name], "dataset_dir": str(trial_datalist.parent), "datalist": str(trial_datalist)}
    torch.manual_seed(0)
    network = initial_network(str(BundleUnderTest(name).folder), **settings)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    output = tmp_path / "out#1"  # MONAI reads # as :: in settings
    expected = federate(name, trial_datalist, output, "one", restart=False, weights=start)
    assert expected[0].keys() == start.keys()
    assert any(not torch.equal(value, expected[1][key]) for key, value in expected[0].items())
    for site in ("two", "one"):  # another site in the same folder, and the same in a second federation
        found = federate(name, trial_datalist, output, site, restart=True, weights=start)
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert [path.name for path in tmp_path.iterdir()] == ["out#1"]
    assert {path.name for path in output.iterdir()} == {"one", "two"}


def test_a_site_counts_by_its_steps(monkeypatch):
    rounds, sent = [SimpleNamespace(params={}, current_round=0)], []
    api = {"init": lambda: None, "is_running": lambda: bool(rounds), "receive": rounds.pop, "send": sent.append}
    flare = SimpleNamespace(**api, FLModel=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "nvflare", SimpleNamespace(client=flare))
    monkeypatch.setitem(sys.modules, "nvflare.client", flare)
    spec = spec_from_file_location("client", JOB.with_name("client.py"))
    spec.loader.exec_module(script := module_from_spec(spec))
    statistics = {FlStatistics.NUM_EXECUTED_ITERATIONS: 7}
    client = MagicMock(**{"get_weights.return_value": ExchangeObject(weights={"a": 1}, statistics=statistics)})
    monkeypatch.setattr(script, "FederatedClient", lambda *_, **__: client)
    script.run("one", "bundle", "data", "out")
    assert [(model.params, model.meta) for model in sent] == [({"a": 1}, {"NUM_STEPS_CURRENT_ROUND": 7})]


@pytest.mark.full_size
@pytest.mark.timeout(1800)
def test_nvflare_runs_two_federations_of_two_sites_after_each_other(trial_datalist, tmp_path):
    pytest.importorskip("nvflare", reason="needs nvflare, in an environment of its own")
    name = "endofm_polyp_classification"
    settings = {**TRIAL_TRAINING[name], "datalist": str(trial_datalist)}
    for site in ("one", "two"):
        (tmp_path / "data" / site).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / site).symlink_to(trial_datalist.parent)
    command = [sys.executable, str(JOB), str(BundleUnderTest(name).folder), "--sites", "['one','two']"]
    command += ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--metric", METRICS[name]]
    command += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    results = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(torch.load(done.stdout.splitlines()[-1], weights_only=True)["model"])
    network = initial_network(str(BundleUnderTest(name).folder), **settings)
    network.load_state_dict(results[0])
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"one", "two", "server"}
