# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import time

import numpy as np
import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endofm_monai.handlers import KNNProbeHandler, ProbeEvaluation, embed_clips
from endofm_monai.metrics import knn_probe, linear_probe

TRAIN, VAL = [0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 1]
KNN = {"knn_accuracy", "knn_balanced_accuracy", "knn_macro_f1", "knn_roc_auc"}


def own_messages(caplog):
    """What the package logged: with a root logger that lets everything pass, ignite speaks too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("endofm_monai")]


@pytest.fixture
def loaders(make_clip_loader):
    return make_clip_loader(TRAIN, shuffle=True), make_clip_loader(VAL)


def test_the_teacher_is_probed_every_interval(make_trainer, loaders, tmp_path, caplog) -> None:
    measured = []
    trainer = make_trainer(
        epochs=5, clips=2, handlers=[KNNProbeHandler(*loaders, interval=2, k=3, output_dir=tmp_path)]
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: measured.append(KNN & e.state.metrics.keys()))
    with caplog.at_level(logging.INFO, "endofm_monai.handlers.probes"):
        trainer.run()
    assert measured == [set(), KNN, set(), KNN, set()]
    assert [message.split(" | ")[0] for message in own_messages(caplog)] == ["epoch 2", "epoch 4"]
    log = EventAccumulator(str(tmp_path / "knn")).Reload()
    assert set(log.Tags()["scalars"]) == {f"epoch/{name}" for name in KNN}
    assert [event.step for event in log.Scalars("epoch/knn_accuracy")] == [2, 4]


def test_scores_after_a_kill_are_logged_once(make_trainer, loaders, tmp_path) -> None:
    for _ in range(2):  # epochs after the last checkpoint are made again
        make_trainer(epochs=2, clips=2, handlers=[KNNProbeHandler(*loaders, k=3, output_dir=tmp_path)]).run()
        time.sleep(1.1)  # the names of logs count seconds
    log = EventAccumulator(str(tmp_path / "knn")).Reload()
    assert [event.step for event in log.Scalars("epoch/knn_accuracy")] == [1, 2]


def test_the_scores_are_those_of_the_teacher_s_backbone(make_trainer, loaders) -> None:
    trainer = make_trainer(epochs=1, clips=2, handlers=[KNNProbeHandler(*loaders, k=3, temperature=0.5)])
    trainer.run()
    train, val = (embed_clips(trainer.network.teacher.backbone, loader, "cpu") for loader in loaders)
    expected = knn_probe(train.embeddings, train.labels, val.embeddings, val.labels, k=3, temperature=0.5)
    assert {f"knn_{name}": score for name, score in expected.items()} == trainer.state.metrics


def test_the_training_is_the_same_with_and_without(make_trainer, loaders) -> None:
    plain = make_trainer(epochs=2, clips=4)
    plain.run()
    probed = make_trainer(epochs=2, clips=4, handlers=[KNNProbeHandler(*loaders, k=3)])
    probed.run()
    assert probed.state.metrics.keys() == KNN
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, probed.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("train", "val"), [([None] * 4, [None] * 2), ([0] * 4, VAL), (TRAIN, [None] * 2), (["a.png", "b.png"], VAL)]
)
def test_without_labels_it_says_so_once(make_trainer, make_clip_loader, tmp_path, caplog, train, val) -> None:
    handler = KNNProbeHandler(make_clip_loader(train), make_clip_loader(val), output_dir=tmp_path)
    with caplog.at_level(logging.INFO, "endofm_monai.handlers.probes"):
        trainer = make_trainer(epochs=2, clips=2, handlers=[handler])
        trainer.run()
    assert own_messages(caplog) == [
        "No k-NN probe: it needs class indices as `label`, of two classes or more in training."
    ]
    assert not trainer.state.metrics
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unreadable", [{"train": [4, 5, 6, 7]}, {"val": [0, 1, 2]}])
def test_a_training_goes_on_where_too_few_clips_can_be_read(make_trainer, make_clip_loader, caplog, unreadable) -> None:
    train = make_clip_loader(TRAIN, unreadable=unreadable.get("train", []), batch_size=1)
    val = make_clip_loader(VAL, unreadable=unreadable.get("val", []), batch_size=1)
    with caplog.at_level(logging.INFO, "endofm_monai.handlers.probes"):
        trainer = make_trainer(epochs=1, clips=2, handlers=[KNNProbeHandler(train, val, k=3)])
        trainer.run()
    assert own_messages(caplog)[-1] == "epoch 1 | no k-NN probe of what could be read"
    assert not trainer.state.metrics


def test_bad_interval(loaders) -> None:
    with pytest.raises(ValueError, match="at least 1 epoch, but got 0"):
        KNNProbeHandler(*loaders, interval=0)


def test_evaluation_writes_and_returns_both_probes(make_evaluator, loaders, backbone, tmp_path, caplog) -> None:
    train_loader, val_loader = loaders
    evaluator = make_evaluator(val_loader, [ProbeEvaluation(train_loader, tmp_path, k=3, temperature=0.1)])
    with caplog.at_level(logging.INFO, "endofm_monai.handlers.probes"):
        evaluator.run()
    train, val = (embed_clips(backbone, loader, "cpu") for loader in loaders)
    arrays = train.embeddings, train.labels, val.embeddings, val.labels
    knn, linear = knn_probe(*arrays, k=3, temperature=0.1), linear_probe(*arrays)
    assert json.loads((tmp_path / "probe.json").read_text()) == {
        "training_clips": {"0": 4, "1": 4},
        "evaluated_clips": {"0": 1, "1": 2},
        "knn": {"k": 3, "temperature": 0.1, **knn},
        "linear": linear,
    }
    named = {f"knn_{name}": score for name, score in knn.items()}
    assert evaluator.state.metrics == named | {f"linear_{name}": score for name, score in linear.items()}
    assert "knn accuracy" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["probe.json"]


def test_both_probes_tell_the_patterns_apart(make_evaluator, make_clip_loader, tmp_path) -> None:
    handler = ProbeEvaluation(make_clip_loader([0] * 8 + [1] * 8), tmp_path, k=5)
    evaluator = make_evaluator(make_clip_loader([0, 1] * 8), [handler])
    evaluator.run()
    assert evaluator.state.metrics["knn_accuracy"] == 1
    assert evaluator.state.metrics["linear_accuracy"] == 1


def test_broken_and_unlabeled_clips_do_not_count(make_evaluator, make_clip_loader, tmp_path) -> None:
    train = make_clip_loader([*TRAIN, None], unreadable=[0], batch_size=1)
    evaluator = make_evaluator(make_clip_loader([*VAL, None], unreadable=[1], batch_size=1), [
        ProbeEvaluation(train, tmp_path, k=3)
    ])  # fmt: skip
    evaluator.run()
    report = json.loads((tmp_path / "probe.json").read_text())
    assert (report["training_clips"], report["evaluated_clips"]) == ({"0": 3, "1": 4}, {"0": 1, "1": 1})


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (TRAIN, [None] * 2, "None of the 2 evaluated clips has a class index"),
        ([None] * 3, VAL, "None of the 3 training clips has a class index"),
        ([1] * 3, VAL, "two classes or more, but all are of class 1"),
    ],
)
def test_evaluation_without_labels_fails(make_evaluator, make_clip_loader, tmp_path, train, val, message: str) -> None:
    evaluator = make_evaluator(make_clip_loader(val), [ProbeEvaluation(make_clip_loader(train), tmp_path, k=2)])
    with pytest.raises(ValueError, match=message):
        evaluator.run()
    assert not list(tmp_path.iterdir())


def test_a_diverged_network_is_named(make_evaluator, loaders, backbone, tmp_path) -> None:
    with torch.no_grad():
        backbone.cls_token.fill_(np.nan)
    with pytest.raises(ValueError, match="features of 8 of 8 training clips are not finite"):
        make_evaluator(loaders[1], [ProbeEvaluation(loaders[0], tmp_path)]).run()
