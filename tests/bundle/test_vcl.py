# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bundles import BundleUnderTest, failing, write_noise
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endofm_monai.data import ClipReadError
from endofm_monai.networks.nets import EndoFM, EndoFMClassifier
from endofm_monai.weights import initialize_backbone

SIZE = {"embed_dim": 16, "depth": 1, "num_heads": 2}
BUNDLE = BundleUnderTest(
    "endofm_pretraining",
    network={
        **{f"network_def::{name}": value for name, value in SIZE.items()},
        **{"num_workers": 0, "num_frames": 4, "frame_size": 32},
    },
    training={
        **{"num_concepts": 10, "queue_length": 8, "epochs_without_local_loss": 1, "epochs": 2, "batch_size": 2},
        **{"model::hidden_dim": 16, "model::bottleneck_dim": 8},
    },
)


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory) -> Path:
    """Output folder of a short training, made once."""
    output = tmp_path_factory.mktemp("trained")
    settings = {"datalist": dataset_dir / "datalist.json", "batch_size": 4, "epochs": 30}
    settings |= {"epochs_without_local_loss": 20, "probe_interval": 30, "learning_rate": 0.001}
    BUNDLE.train(dataset_dir, output, "vcl", "knn_probe", **settings)
    return output


def test_loss_falls_and_health_is_logged(trained):
    log = EventAccumulator(str(trained / "eval")).Reload()
    losses = [event.value for event in log.Scalars("epoch/loss")][:20]
    assert sum(losses[15:]) / 5 < sum(losses[:5]) / 5 - 1
    rates = [event.value for event in log.Scalars("step/lr")]
    assert rates == pytest.approx([1e-3] * 21 + [1e-4] * 9)
    assert log.Scalars("epoch/spread")[-1].value > 0.01
    assert {path.name for path in (trained / "eval").iterdir() if path.is_dir()} == {"views", "attention", "knn"}


@pytest.mark.parametrize("name", ["model.pt", "checkpoint.pt"])
def test_weights_start_a_classifier(trained, name):
    network = EndoFMClassifier(EndoFM(**SIZE), torch.nn.Linear(16, 2))
    initialize_backbone(network, trained / "models" / name)
    pretrained = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(value.equal(pretrained[key]) for key, value in network.backbone.state_dict().items())


def test_resumes_and_trains_in_two_processes(dataset_dir, tmp_path):
    """Also where `small.json`, of the other method, comes before."""
    BUNDLE.train_in_two_processes(dataset_dir, tmp_path, "small", "vcl", epochs=1)
    BUNDLE.train_in_two_processes(dataset_dir, tmp_path, "vcl", resume=True)
    state = torch.load(tmp_path / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 2 * 3
    assert int(state["loss"]["queue_rows"]) == 8


def test_short_video_is_skipped_or_stops_by_policy(dataset_dir, tmp_path, caplog):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(4):
        (videos / f"{number}.mp4").write_bytes((dataset_dir / f"{number}.mp4").read_bytes())
    write_noise(videos / "short.mp4", 5, frames=7)
    BUNDLE.train(videos, tmp_path / "skip", "vcl", max_broken_share=0.3, epochs=1)
    assert "short.mp4: has 7 frames, fewer than two clips" in caplog.text
    with failing("short.mp4: has 7 frames", kind=ClipReadError):
        BUNDLE.train(videos, tmp_path / "raise", "vcl", on_error="raise", epochs=1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch_size": 1}, "`batch_size` must be at least 2"),
        ({"num_concepts": 9}, "`num_concepts` must be at least 10"),
        ({"queue_length": 1}, "`queue_length` must hold a batch of 2 videos"),
        ({"num_frames": 1}, "`num_frames` must be at least 2"),
        ({"token_drop": 0.5}, "`token_drop` must be 0"),
        ({"model::num_prototypes": 8}, "`model::num_prototypes`"),
    ],
)
def test_wrong_settings_are_named_before_the_training(dataset_dir, tmp_path, overrides, message):
    with failing(message):
        BUNDLE.train(dataset_dir, tmp_path, "vcl", **overrides)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overlay", ["learning", "reference"])
def test_what_is_endo_fms_alone_is_refused_before_the_training(dataset_dir, tmp_path, overlay):
    with failing(f"{overlay}.json", "leave it out with vcl.json", kind=ValueError):
        BUNDLE.train(dataset_dir, tmp_path, overlay, "vcl")
