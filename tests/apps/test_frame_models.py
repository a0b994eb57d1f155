# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from endofm_monai.inferers.bundle import Bundle
from endofm_monai.inferers.frame_models import open_frame_model

BUNDLES = Path(__file__).parents[2] / "bundle"
SMALL = {"embed_dim": 32, "depth": 1, "num_heads": 2}
CHANGES = {
    "detection": {"num_supports": 2, "window": 3, "frame_size": [64, 96], "mode": "offline"},
    "segmentation": {"decoder": "simple", "window": 3, "stride": 1, "frame_size": 48},
    "classification": {"num_frames": 3, "sampling_rate": 2, "frame_size": 32},
}


@pytest.fixture
def bundle(request, tmp_path):
    """A tiny bundle with random weights."""
    task = request.param
    folder = tmp_path / f"endofm_polyp_{task}"
    shutil.copytree(BUNDLES / folder.name / "configs", folder / "configs")
    path = folder / "configs" / "inference.json"
    content = json.loads(path.read_text())
    content.update(CHANGES[task])
    content["network_def"].update({"preset": "tiny", **SMALL})
    path.write_text(json.dumps(content))
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").touch()
    torch.manual_seed(0)
    network = Bundle(folder).get("network_def")
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def frames(tmp_path):
    """Nine frames of noise in a folder of their own."""
    random = np.random.default_rng(0)
    (tmp_path / "data" / "a").mkdir(parents=True)
    for index in range(9):
        image = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8))
        image.save(tmp_path / "data" / "a" / f"{index}.png")
    return tmp_path / "data"


def read(frames: Path) -> list[torch.Tensor]:
    paths = sorted((frames / "a").iterdir())
    return [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths]


@pytest.mark.parametrize("bundle", ["segmentation"], indirect=True)
def test_masks_are_those_of_the_network_on_the_window_before(bundle, frames):
    model = open_frame_model(str(bundle))
    answers = list(model.answers(frames / "a"))
    assert len(answers) == 9
    assert answers[0].shape == (40, 60)
    clip = torch.stack(read(frames)[3:6], dim=1)
    inputs = model._prepare(model.bundle.get("pre_transforms"), clip)
    with torch.no_grad():
        logits = model.network(inputs[None])[0]
    expected = model.bundle.get("postprocessing")({"pred": logits, "frames": clip})["probability"][0, -1]
    torch.testing.assert_close(answers[5], expected)
    assert not torch.equal(model.push(read(frames)[5], "other"), answers[5])  # which has no frames before
    assert 0 < model.uncertainty(answers[5]) <= 1


@pytest.mark.parametrize("bundle", ["classification"], indirect=True)
def test_classes_are_those_of_the_window_that_ends_with_the_frame(bundle, frames):
    model = open_frame_model(str(bundle), fps=30.0)
    *_, last = model.answers(frames / "a")
    clip = torch.stack([read(frames)[index] for index in (3, 5, 8)], dim=1)  # 3 frames over 6 frames at 30 per second
    with torch.no_grad():
        logits = model.network(model._prepare(model.bundle.get("preprocessing"), clip)[None])
    torch.testing.assert_close(last, logits.softmax(dim=1)[0])
    assert 0 < model.uncertainty(last) <= 1


@pytest.mark.parametrize("bundle", ["detection"], indirect=True)
def test_detections_of_a_file_may_look_ahead_and_of_frames_as_they_come_not(bundle, frames):
    model = open_frame_model(str(bundle))
    expected = list(model._make("online").detect([torch.stack(read(frames), dim=1)]))
    for frame, (_, detections) in zip(read(frames), expected, strict=True):
        found = model.push(frame, "a")
        torch.testing.assert_close(found["label_scores"], detections["label_scores"], rtol=1e-4, atol=1e-4)
    offline = list(model.answers(frames / "a"))
    assert len(offline) == 9
    assert len(offline[0]["box"]) > 0
    first = expected[0][1]["label_scores"]
    assert len(first) != len(offline[0]["label_scores"]) or not torch.allclose(first, offline[0]["label_scores"])
