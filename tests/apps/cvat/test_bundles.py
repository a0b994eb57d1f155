# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""``annotate`` draws what the bundle's own inference says of each frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from endofm_monai.apps.cvat.__main__ import annotate
from endofm_monai.apps.cvat.answers import open_annotator
from endofm_monai.formats import read_cvat_xml
from endofm_monai.formats.masks import draw_polygon
from endofm_monai.inferers.bundle import Bundle, load_predictor

CHANGES = {
    "detection": {"num_supports": 2, "window": 3, "frame_size": [64, 96], "threshold": 0.4},
    "segmentation": {"decoder": "simple", "window": 3, "stride": 1, "frame_size": 48},
    "classification": {"num_frames": 3, "sampling_rate": 2, "frame_size": 32},
}
FRAMES = 7


@pytest.fixture(params=CHANGES)
def bundle(request, tmp_path):
    """A tiny bundle with random weights."""
    folder = tmp_path / f"endofm_polyp_{request.param}"
    shutil.copytree(Path(__file__).parents[3] / "bundle" / folder.name / "configs", folder / "configs")
    path = folder / "configs" / "inference.json"
    content = json.loads(path.read_text())
    content.update(CHANGES[request.param])
    content["network_def"].update({"preset": "tiny", "embed_dim": 32, "depth": 1, "num_heads": 2})
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
def video(tmp_path):
    """Frames of noise, in a folder of their own."""
    random = np.random.default_rng(0)
    (tmp_path / "video").mkdir()
    for index in range(FRAMES):
        Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "video" / f"{index}.png")
    return str(tmp_path / "video")


@pytest.mark.parametrize("task", CHANGES)
def test_nuclio_is_told_the_labels_of_the_bundles_that_come_along(task):
    root = Path(__file__).parents[3]
    function = yaml.safe_load((root / f"endofm_monai/apps/cvat/nuclio/{task}.yaml").read_text())
    labels = {label["name"] for label in json.loads(function["metadata"]["annotations"]["spec"])}
    assert labels == set(Bundle(root / "bundle" / f"endofm_polyp_{task}").labels)


def test_annotate_draws_the_answers_of_the_bundles_inference(bundle, video, tmp_path):
    annotate(video, str(bundle), str(tmp_path / "a.xml"), max_gap=0, tolerance=0.0, min_area=1)
    task = read_cvat_xml(tmp_path / "a.xml")
    predictor = load_predictor(bundle)
    answers = [answer for _, answer in predictor(video)]
    shapes = [[shape for track in task.tracks if (shape := track.visible(FRAMES).get(n))] for n in range(FRAMES)]
    name = ""
    for index, (answer, drawn) in enumerate(zip(answers, shapes, strict=True)):
        if predictor.task == "detection":
            expected = answer["box"][answer["label_scores"] >= 0.4].numpy().round(2)
            assert sorted(shape.points for shape in drawn) == sorted(map(tuple, expected.astype(float).round(2)))
        elif predictor.task == "segmentation":
            polygons = [draw_polygon(shape.points, 40, 60) for shape in drawn]
            assert (np.any([*polygons, np.zeros((40, 60), bool)], axis=0) >= answer["mask"][0].numpy()).all()
            assert bool(polygons) == bool(answer["mask"].any())
        else:
            name = task.tags[index][0].label if index in task.tags else name
            assert name == list(Bundle(bundle).labels)[answer["probabilities"].argmax()]
    assert any(shapes) or task.tags


def test_frames_that_are_pushed_get_the_answers_of_an_online_run(bundle, video):
    pushed, run = open_annotator(str(bundle)), open_annotator(str(bundle))
    for index, (_, answer) in enumerate(run.predictor(video)):
        found, expected = pushed.push(Image.open(Path(video, f"{index}.png"))), run.draw(answer)
        assert [(each.label, each.track) for each in found] == [(each.label, each.track) for each in expected]
        assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-4)
        assert [each.points for each in found] == [pytest.approx(each.points, abs=0.02) for each in expected]
