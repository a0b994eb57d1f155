# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Bundles that see a bright spot of an odd place, and what is drawn of it in CVAT."""

from __future__ import annotations

import base64
import io
import json
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from endofm_monai.apps.cvat.__main__ import annotate
from endofm_monai.apps.cvat.answers import FrameAnnotator
from endofm_monai.apps.cvat.nuclio import main as nuclio
from endofm_monai.formats.cvat_xml import read_cvat_xml
from endofm_monai.inferers.frame_models import FrameModel

HEIGHT, WIDTH = 60, 90
LABELS: dict[str, dict[str, int]] = {
    "detection": {"adenoma": 1, "other": 2},
    "segmentation": {"polyp": 1},
    "classification": {"normal": 0, "abnormal": 1},
}
PLACES = [None, 10, 14, None, 18, None, None, 60]  # of the spot, by frame


class SpotModel(FrameModel):
    """Finds a bright spot, and remembers how many frames it has seen."""

    def __init__(self, task: str) -> None:
        settings = {"threshold": 0.5, "multi_label": False}
        self.bundle: Any = SimpleNamespace(task=task, labels=LABELS[task], get=settings.__getitem__)
        self._video: object = None
        self._frames: deque[torch.Tensor] = deque()

    def uncertainty(self, answer: Any) -> float:
        raise NotImplementedError

    def _answer(self, frame: torch.Tensor) -> Any:
        self._frames.append(frame)
        bright = frame[0, 0] > 200
        if self.bundle.task == "segmentation":
            return bright.float() * 0.9
        if self.bundle.task == "classification":
            share = 0.9 if bright.any() else 0.2
            return torch.tensor([1 - share, share])
        rows, columns = torch.nonzero(bright, as_tuple=True)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
        weak = [1.0, 1.0, 9.0, 9.0]
        box = torch.tensor([*corners, *weak], dtype=torch.float32).reshape(-1, 4)
        scores = torch.tensor([0.8, 0.3])[-len(box) :]
        return {"box": box, "label": torch.ones(len(box), dtype=torch.long), "label_scores": scores}


def frame_at(x: int | None) -> Image.Image:
    """A dark frame with a bright spot of 20x10 pixels, or none."""
    frame = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    if x is not None:
        frame[8:18, x : x + 20] = 240
    return Image.fromarray(frame)


@pytest.fixture
def video(tmp_path):
    """A folder of frames."""
    for index, place in enumerate(PLACES):
        (tmp_path / "video").mkdir(exist_ok=True)
        frame_at(place).save(tmp_path / "video" / f"{index}.png")
    return str(tmp_path / "video")


@pytest.fixture
def use(monkeypatch):
    """Make the commands take the model of a task instead of a bundle."""

    def use_model(task: str) -> SpotModel:
        model = SpotModel(task)
        for module in ("endofm_monai.apps.cvat.__main__", nuclio.__name__):
            monkeypatch.setattr(f"{module}.open_frame_model", lambda *_: model)
        return model

    return use_model


def test_a_video_gets_a_track_for_each_polyp(use, video, tmp_path):
    use("detection")
    annotate(video, "bundle", str(tmp_path / "a.xml"), max_gap=1)
    task = read_cvat_xml(tmp_path / "a.xml")
    assert (task.frames, task.width, task.height, task.labels) == (8, 90, 60, ["adenoma", "other"])
    first, second = task.tracks
    assert list(first.visible(8)) == [1, 2, 3, 4]  # missed in 3, where the box lies between
    assert first.shapes[1].points == (10.0, 8.0, 30.0, 18.0)
    assert first.visible(8)[3].points == (16.0, 8.0, 36.0, 18.0)
    assert (list(second.visible(8)), second.label, second.source) == ([7], "adenoma", "auto")


def test_polygons_are_tracks_too(use, video, tmp_path):
    use("segmentation")
    annotate(video, "bundle", str(tmp_path / "a.xml"), max_gap=1)
    first, second = read_cvat_xml(tmp_path / "a.xml").tracks
    assert list(first.visible(8)) == [1, 2, 4]
    corners = np.reshape(first.shapes[2].points, (-1, 2))
    np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [[14, 8], [34, 18]], atol=0.51)
    assert list(second.visible(8)) == [7]


def test_tags_stand_where_the_class_changes(use, video, tmp_path):
    use("classification")
    annotate(video, "bundle", str(tmp_path / "a.xml"))
    tags = read_cvat_xml(tmp_path / "a.xml").tags
    names = {frame: [tag.label for tag in entries] for frame, entries in tags.items()}
    assert names == {0: ["normal"], 1: ["abnormal"], 3: ["normal"], 4: ["abnormal"], 5: ["normal"], 7: ["abnormal"]}


def test_threshold_is_that_of_the_bundle_unless_given():
    annotator = FrameAnnotator(SpotModel("detection"))
    answer = annotator.model.push(torch.from_numpy(np.array(frame_at(10))).permute(2, 0, 1))
    assert [each.score for each in annotator.draw(answer)] == [pytest.approx(0.8)]
    assert len(annotator.draw(answer, threshold=0.2)) == 2
    assert annotator.draw(answer, threshold=0.9) == []


@pytest.mark.parametrize(
    ("task", "label", "kind", "points"),
    [
        ("detection", "adenoma", "rectangle", [10, 8, 30, 18]),
        ("segmentation", "polyp", "polygon", None),
        ("classification", "abnormal", "tag", []),
    ],
)
def test_nuclio_answers_for_a_frame(use, monkeypatch, task, label, kind, points):
    model = use(task)
    monkeypatch.setenv("ENDOFM_BUNDLE", "bundle")
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=lambda **response: response)
    nuclio.init_context(context)
    file = io.BytesIO()
    frame_at(10).save(file, "PNG")
    body = {"image": base64.b64encode(file.getvalue()).decode(), "threshold": 0.5}
    for _ in range(2):
        response = nuclio.handler(context, SimpleNamespace(body=body))
        assert len(model._frames) == 1  # each frame is seen alone
    assert response["status_code"] == 200
    (found,) = json.loads(response["body"])
    assert (found["label"], found["type"]) == (label, kind)
    assert points is None or found["points"] == points
    for bad in ({}, {"image": "AAAA"}, {"image": body["image"], "threshold": "high"}):
        response = nuclio.handler(context, SimpleNamespace(body=bad))
        assert (response["status_code"], "the request is not usable" in response["body"]) == (400, True)
