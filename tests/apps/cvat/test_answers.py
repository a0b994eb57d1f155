# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Predictors that see a bright spot of an odd place, and what is drawn of it in CVAT."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
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

HEIGHT, WIDTH = 60, 90
LABELS: dict[str, dict[str, int]] = {
    "detection": {"adenoma": 1, "other": 2},
    "segmentation": {"polyp": 1},
    "classification": {"normal": 0, "abnormal": 1},
}
PLACES = [None, 10, 14, None, 18, None, None, 60]  # of the spot, by frame


class SpotPredictor:
    """Finds a bright spot, and remembers how many frames it has seen."""

    threshold, multi_label = 0.5, False

    def __init__(self, task: str) -> None:
        self.task = task
        self.begin()

    def begin(self, info: Any = None) -> None:
        self.info, self.seen = info, 0

    def __call__(self, reader: Any) -> Iterator[Any]:
        self.begin(reader.probe())
        for index in range(reader.probe().frames):
            yield from self.push(reader.read([index]))

    def push(self, frames: torch.Tensor) -> list[Any]:
        return [(frame, self._answer(frame)) for frame in frames.unbind(1)]

    def _answer(self, frame: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += 1
        bright = frame[0] > 200
        if self.task == "segmentation":
            return {"mask": bright[None].byte(), "probability": bright[None] * 0.9}
        if self.task == "classification":
            share = 0.9 if bright.any() else 0.2
            return {"probabilities": torch.tensor([1 - share, share])}
        rows, columns = torch.nonzero(bright, as_tuple=True)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
        box = torch.tensor([*corners, 1.0, 1.0, 9.0, 9.0], dtype=torch.float32).reshape(-1, 4)
        scores = torch.tensor([0.8, 0.3])[-len(box) :]
        return {"box": box, "label": torch.ones(len(box), dtype=torch.long), "label_scores": scores}


def annotator_of(task: str, **options: Any) -> FrameAnnotator:
    return FrameAnnotator(SpotPredictor(task), LABELS[task], **options)


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
    """Make the commands take the predictor of a task instead of a bundle."""

    def use_predictor(task: str) -> list[Any]:
        opened = []

        def open_annotator(bundle: str, device: str = "cpu", mode: str = "online", **options: Any) -> FrameAnnotator:
            opened.append((bundle, device, mode))
            return annotator_of(task, **options)

        for module in ("endofm_monai.apps.cvat.__main__", nuclio.__name__):
            monkeypatch.setattr(f"{module}.open_annotator", open_annotator)
        return opened

    return use_predictor


def test_a_video_gets_a_track_for_each_polyp(use, video, tmp_path):
    opened = use("detection")
    annotate(video, "bundle", str(tmp_path / "a.xml"), max_gap=1)
    assert opened == [("bundle", "cpu", "offline")]
    task = read_cvat_xml(tmp_path / "a.xml")
    assert (task.frames, task.width, task.height, task.labels) == (8, 90, 60, ["adenoma", "other"])
    first, second = task.tracks
    assert list(first.visible(8)) == [1, 2, 3, 4]  # missed in 3, where the box lies between
    assert first.shapes[1].points == (10.0, 8.0, 30.0, 18.0)
    assert first.visible(8)[3].points == (16.0, 8.0, 36.0, 18.0)
    assert (list(second.visible(8)), second.label, second.source) == ([7], "adenoma", "auto")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "abc"}, "`threshold` must be a number from 0 to 1, found 'abc'."),
        ({"max_gap": "abc"}, "`max_gap` must be a whole number from 0 on, found 'abc'."),
        ({"max_gap": -1}, "`max_gap` must be a whole number from 0 on, found -1."),
        ({"iou": 2}, "`iou` must be a number from 0 to 1, found 2."),
        ({"output": "/proc/nowhere/a.xml"}, "cannot be written to"),
        ({"output": "."}, "is a folder, expected the XML file"),
    ],
)
def test_what_cannot_be_annotated_with_is_said_before_the_video_is_read(use, tmp_path, options, message):
    use("detection")
    with pytest.raises((ValueError, OSError), match=message):
        annotate("no.mp4", "bundle", **{"output": str(tmp_path / "a.xml"), **options})


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


def test_frames_without_a_class_above_the_threshold_are_told(use, video, tmp_path, capsys):
    use("classification")
    annotate(video, "bundle", str(tmp_path / "a.xml"), threshold=0.85)
    assert read_cvat_xml(tmp_path / "a.xml").tags
    assert " frames no class reaches the threshold" in capsys.readouterr().out


def test_threshold_is_that_of_the_bundle_unless_given():
    annotator = annotator_of("detection")
    assert [each.score for each in annotator.push(frame_at(10))] == [pytest.approx(0.8)]
    assert len(annotator.push(frame_at(10), threshold=0.2)) == 2
    assert annotator.push(frame_at(10), threshold=0.9) == []


def test_frames_of_16_bits_are_scaled():
    deep = Image.fromarray(np.asarray(frame_at(10))[..., 0].astype(np.uint16) * 257)
    assert annotator_of("detection").push(deep) == annotator_of("detection").push(frame_at(10))


def test_mask_is_that_of_the_bundle_unless_a_threshold_is_given():
    annotator = annotator_of("segmentation", min_area=1)
    answer = {"mask": torch.zeros(1, 20, 20, dtype=torch.uint8), "probability": torch.zeros(1, 20, 20)}
    answer["mask"][0, 5:10, 5:10] = 1  # after the bundle's post-processing
    answer["probability"][0, 5:10, 5:8] = 0.7
    (found,) = annotator.draw(answer)
    assert (max(found.points), found.score) == (pytest.approx(9.5, abs=0.51), pytest.approx(0.7))
    (found,) = annotator.draw(answer, threshold=0.6)
    assert max(found.points[::2]) <= 8
    assert annotator.draw(answer, threshold=0.8) == []
    answer["probability"][0, 12:18, 12:18] = 0.9
    assert [each.score for each in annotator.draw(answer, 0.6)] == pytest.approx([0.7, 0.9])  # each has its own


def test_classes_that_do_not_exclude_each_other_are_all_drawn():
    annotator = annotator_of("classification")
    answer = {"probabilities": torch.tensor([0.6, 0.9])}
    assert [each.label for each in annotator.draw(answer)] == ["abnormal"]
    assert annotator.draw(answer, threshold=0.95) == []
    annotator.predictor.multi_label = True
    assert [each.label for each in annotator.draw(answer)] == ["normal", "abnormal"]
    assert [each.label for each in annotator.draw(answer, threshold=0.7)] == ["abnormal"]


@pytest.mark.parametrize(
    ("task", "label", "kind", "points"),
    [
        ("detection", "adenoma", "rectangle", [10, 8, 30, 18]),
        ("segmentation", "polyp", "polygon", None),
        ("classification", "abnormal", "tag", []),
    ],
)
def test_nuclio_answers_for_a_frame(use, monkeypatch, task, label, kind, points):
    use(task)
    monkeypatch.setenv("ENDOFM_BUNDLE", "bundle")
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=lambda **response: response)
    nuclio.init_context(context)
    file = io.BytesIO()
    frame_at(10).save(file, "PNG")
    body = {"image": base64.b64encode(file.getvalue()).decode(), "threshold": 0.5}
    for _ in range(2):
        response = nuclio.handler(context, SimpleNamespace(body=body))
        assert context.user_data.annotator.predictor.seen == 1  # each frame is seen alone
    assert response["status_code"] == 200
    (found,) = json.loads(response["body"])
    assert (found["label"], found["type"]) == (label, kind)
    assert points is None or found["points"] == points
    pictures = [io.BytesIO(), io.BytesIO()]
    Image.new("1", (20_000, 10_000)).save(pictures[0], "PNG")  # more pixels than Pillow opens
    Image.new("F", (9, 9)).save(pictures[1], "TIFF")
    unusable = [{"image": base64.b64encode(picture.getvalue()).decode()} for picture in pictures]
    for bad in ({}, {"image": "AAAA"}, {**body, "threshold": "high"}, {**body, "threshold": 50}, *unusable):
        response = nuclio.handler(context, SimpleNamespace(body=bad))
        assert (response["status_code"], "the request is not usable" in response["body"]) == (400, True)
