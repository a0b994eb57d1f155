# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The function as ``cvat-cli task auto-annotate`` calls it: by the client's own driver, with a task that stands in."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from .test_answers import PLACES, annotator_of, frame_at

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
models = pytest.importorskip("cvat_sdk.models")


def run(monkeypatch, task, names, places, label_type="any", **options):
    """Let the client annotate a task of frames; gives the function, and what the client would upload."""
    from cvat_sdk.auto_annotation import driver

    from endofm_monai.apps.cvat.function import VideoFunction

    function = VideoFunction(annotator_of(task, max_gap=1), fps=25.0)
    uploaded = {}
    labels = [
        models.Label(
            name=name,
            id=40 + number,
            type=label_type,
            sublabels=[],
            attributes=[models.Attribute(name="track", mutable=False, input_type="text", values=[], id=9)],
        )
        for name, number in function.annotator.labels.items()
    ]
    samples = [
        SimpleNamespace(
            frame_index=i, frame_name=name, media=SimpleNamespace(load_image=lambda place=place: frame_at(place))
        )
        for i, (name, place) in enumerate(zip(names, places, strict=True))
    ]
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=samples))
    api = SimpleNamespace(
        update_annotations=lambda task_id, labeled_data_request: uploaded.update(data=labeled_data_request)
    )
    client = SimpleNamespace(logger=logging.getLogger("client"), tasks=SimpleNamespace(api=api))
    cvataa.annotate_task(client, 7, function, clear_existing=True, **options)
    return function, uploaded["data"]


def test_boxes_of_one_polyp_have_one_number(monkeypatch):
    names = [f"case/{index}.png" for index in range(8)]
    function, data = run(monkeypatch, "detection", names, PLACES)
    found = [(shape.frame, shape.label_id, shape.type.value, shape.attributes[0].value) for shape in data.shapes]
    assert found == [
        (1, 41, "rectangle", "0"),
        (2, 41, "rectangle", "0"),
        (4, 41, "rectangle", "0"),
        (7, 41, "rectangle", "1"),
    ]
    assert data.shapes[0].points == [10.0, 8.0, 30.0, 18.0]
    assert data.shapes[0].attributes[0].spec_id == 9
    assert function.annotator.predictor.seen == 8  # the model has seen them all
    assert function.annotator.predictor.info.fps == 25


def test_another_folder_or_an_earlier_frame_is_another_video(monkeypatch):
    names = ["a/1.png", "a/2.png", "a/10.png", "b/11.png", "b/3.png"]
    function, data = run(monkeypatch, "detection", names, [10] * 5)
    assert [shape.attributes[0].value for shape in data.shapes] == ["0", "0", "0", "0", "0"]
    assert function.annotator.predictor.seen == 1


def test_polygons_and_tags(monkeypatch):
    _, data = run(monkeypatch, "segmentation", ["1.png", "2.png"], [10, None], "polygon")
    (shape,) = data.shapes
    assert (shape.type.value, shape.label_id, shape.source) == ("polygon", 41, "auto")
    _, data = run(monkeypatch, "classification", ["1.png", "2.png"], [10, None], "tag")
    assert [(tag.frame, tag.label_id) for tag in data.tags] == [(0, 41), (1, 40)]


def test_threshold_of_the_command(monkeypatch):
    _, data = run(monkeypatch, "detection", ["1.png"], [10], conf_threshold=0.2)
    assert len(data.shapes) == 2
    _, data = run(monkeypatch, "detection", ["1.png"], [10], conf_threshold=0.9)
    assert data.shapes == []


def test_the_client_loads_the_file(monkeypatch):
    common = pytest.importorskip("cvat_cli._internal.common")
    import endofm_monai.apps.cvat.function as module

    opened = []
    monkeypatch.setattr(
        "endofm_monai.apps.cvat.answers.open_annotator",
        lambda *given, **options: opened.append((given, options)) or annotator_of("detection"),
    )
    loader = common.FunctionLoader(None, Path(module.__file__), {"bundle": "folder", "max_gap": 2})
    function = loader.load()
    assert [label.name for label in function.spec.labels] == ["adenoma", "other"]
    assert opened == [(("folder", "cpu"), {"max_gap": 2})]
