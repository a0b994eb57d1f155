# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigWorkflow
from torch.utils.tensorboard import SummaryWriter
from trial import TRIAL_TRAINING

from endofm_monai.apps.sharing.zoo_tests import make_trial_clips


def test_a_real_run_of_a_bundle_is_measured(scripts, monkeypatch, tmp_path):
    compare, run = scripts
    datalist = make_trial_clips(tmp_path / "clips")

    def in_this_process(files, log):
        workflow = ConfigWorkflow(list(files), workflow_type="train", logging_file=False)
        workflow.initialize()
        workflow.run()
        return 1.0

    monkeypatch.setattr(run, "run_bundle", in_this_process)
    settings = {**TRIAL_TRAINING["endofm_polyp_classification"], "dataset_dir": str(datalist.parent), "epochs": 2}
    task = {
        "bundle": "classification",
        "training": ["linear_probe"],
        "settings": settings,
        "evaluation": {"num_windows": 1, "bootstrap_resamples": 2},
    }
    out = tmp_path / "out #1"
    content = {"output": str(out), "starts": {"random": None}, "tasks": {"polyps": task}}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(content))
    compare.compare(str(tmp_path / "compare.yaml"))
    (result,) = json.loads((out / "comparison.json").read_text())
    assert 0 <= result["value"] <= 1
    assert 0 < result["trained_parameters"] < result["parameters"] / 2
    assert result["seconds_per_step"] > 0
    assert not (out / "runs" / "polyps" / "1.0" / "random" / "seed0" / "models" / "checkpoint.pt").exists()


@pytest.mark.parametrize("on_device", [False, True])
def test_tokens_are_those_of_views_wherever_they_are_made(scripts, tmp_path, on_device):
    _, run = scripts
    datalist = make_trial_clips(tmp_path / "clips")
    content = json.loads(datalist.read_text())
    (tmp_path / "clips" / content["training"][0]["image"][0]).write_bytes(b"torn")
    settings = {**TRIAL_TRAINING["endofm_pretraining"], "augment_on_device": on_device}
    own = {**settings, "dataset_dir": str(datalist.parent), "datalist": str(datalist)}
    (tmp_path / "own.json").write_text(json.dumps(own))
    train = Path(__file__).parents[2] / "bundle" / "endofm_pretraining" / "configs" / "train.json"
    # 2 and 4 frames of 32 x 32 pixels and twice 2 of 16 x 16, in patches of 16 x 16
    assert run.count_tokens([str(train), str(tmp_path / "own.json")]) == (2 + 4) * 4 + (2 + 2) * 1


def test_the_time_of_a_step_is_that_of_all_steps_of_a_long_training(scripts, tmp_path):
    _, run = scripts
    with SummaryWriter(str(tmp_path)) as log:
        for step in range(1, 30_001):
            log.add_scalar("step/loss", 1.0, step, walltime=1000 + 0.25 * step)
    assert run.seconds_per_step(tmp_path) == 0.25


def test_what_ends_badly_is_told_by_its_last_line(scripts, tmp_path):
    _, run = scripts
    with pytest.raises(RuntimeError, match=r"run.log: ended with 1: .*no.json"):
        run.run_bundle([str(tmp_path / "no.json")], tmp_path / "run.log")


def test_the_interval_of_a_detector_stands_beside_its_scores_whatever_its_classes_are_called(
    scripts, monkeypatch, tmp_path
):
    _, run = scripts
    report = {"scores": {"box_a/b_f1": 0.5}, "intervals": {"box_a/b_f1": [0.4, 0.6]}}
    (tmp_path / "trained.json").write_text("{}")
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "detection.json").write_text(json.dumps(report))
    monkeypatch.setattr(run, "run_bundle", lambda files, log: 1.0)
    evaluated = run.Run(("a", 0), tmp_path, Path("endofm_polyp_detection"), ["train"], {}, score="box_a/b_f1")
    assert evaluated.execute() == {"score": "box_a/b_f1", "value": 0.5, "interval": [0.4, 0.6]}


def test_the_memory_of_a_run_is_not_that_of_the_comparison(scripts, monkeypatch, tmp_path):
    _, run = scripts
    (tmp_path / "small").write_text("#!/bin/sh\nexec sleep 1\n")
    (tmp_path / "small").chmod(0o755)
    monkeypatch.setattr(run.sys, "executable", str(tmp_path / "small"))
    assert 0 < run.run_bundle([], tmp_path / "run.log") < 0.05
