# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from endofm_monai.formats.coco import datalist_from_coco, write_coco_annotations
from endofm_monai.formats.cvat_xml import read_cvat_xml, write_cvat_xml
from endofm_monai.formats.items import annotations_from_item, items_from_annotations

from .conftest import HEIGHT, LABELS, WIDTH, tasks

PROPERTY = settings(max_examples=25, deadline=None)


def through_xml(annotations):
    with tempfile.TemporaryDirectory() as folder:
        write_cvat_xml(annotations, Path(folder, "a.xml"))
        return read_cvat_xml(Path(folder, "a.xml"))


def ordered(item):
    """The item with what belongs to a frame in one order, since its order means nothing."""
    item = json.loads(json.dumps(item))
    boxes = zip(item.pop("box"), item.pop("box_label"), item.pop("box_info"), strict=True)
    item["boxes"] = [sorted(map(json.dumps, zip(*frame, strict=True))) for frame in boxes]
    item["outline"] = [sorted(json.dumps(entry, sort_keys=True) for entry in frame) for frame in item["outline"]]
    return item


@PROPERTY
@given(tasks())
def test_xml_of_a_video_loses_nothing(task):
    assert through_xml(task) == task


@PROPERTY
@given(tasks(images=True))
def test_xml_of_images_loses_nothing(task):
    assert through_xml(task) == task


@PROPERTY
@given(tasks())
def test_datalist_of_a_video_says_the_same_of_every_frame(task):
    (item,) = items_from_annotations(task, LABELS)
    again = annotations_from_item(item, LABELS, WIDTH, HEIGHT)
    assert again.tags == task.tags
    assert again.start == task.start
    for track in (track for track in task.tracks if track.number is not None):
        expected = track.visible(task.frames)
        found = [other for other in again.tracks if other.number == track.number]
        assert [other.visible(task.frames) for other in found] == ([expected] if expected else [])
        assert all(
            (other.label, other.group, other.source) == (track.label, track.group, track.source) for other in found
        )
    # and through a file
    (read,) = items_from_annotations(through_xml(again), LABELS)
    assert ordered(read) == ordered(item)


@PROPERTY
@given(tasks(images=True))
def test_datalist_of_images_loses_nothing(task):
    (item,) = items_from_annotations(task, LABELS)
    (read,) = items_from_annotations(through_xml(annotations_from_item(item, LABELS, WIDTH, HEIGHT)), LABELS)
    assert ordered(read) == ordered(item)


@pytest.mark.parametrize("images", [True, False])
def test_coco_of_a_datalist_loses_nothing(images):
    @PROPERTY
    @given(tasks(images=images))
    def check(task):
        items = items_from_annotations(task, LABELS)
        for item in items:  # COCO gives width and height instead of the far corner: exact for a few decimals
            item["box"] = [[[round(side, 4) for side in box] for box in frame] for frame in item["box"]]
        with tempfile.TemporaryDirectory() as folder:
            write_coco_annotations(items, LABELS, [(HEIGHT, WIDTH)] * len(items), Path(folder, "coco.json"))
            files = {"training": Path(folder, "coco.json")}
            read = datalist_from_coco(files, LABELS, Path(folder, "list.json"), outlines=True)["training"]
        assert [item["image"] for item in read] == [item["image"] for item in items]
        for one, other in zip(read, items, strict=True):
            assert ordered(one) == ordered(other)

    check()
