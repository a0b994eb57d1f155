# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from endofm_monai.data import open_clip
from endofm_monai.formats.video import write_video
from endofm_monai.handlers import DetectionSaver, videos_from_engine
from endofm_monai.visualize import draw_boxes

HERE, MOVED, FAR = [10.0, 20.0, 40.0, 50.0], [12.0, 20.0, 42.0, 52.0], [60.0, 5.0, 75.0, 20.0]


def detections(*found):
    """Detections from triples of box, class and score."""
    return {
        "box": torch.tensor([box for box, _, _ in found]).reshape(-1, 4),
        "label": torch.tensor([label for _, label, _ in found], dtype=torch.long),
        "label_scores": torch.tensor([score for _, _, score in found]),
    }


FRAMES = [
    detections((HERE, 1, 0.9), (FAR, 2, 0.7)),
    detections((MOVED, 1, 0.8), (FAR, 1, 0.1)),
    detections(),
    detections((HERE, 1, 0.6)),
]


def save(folder, frames, video="colon/a", **options):
    paths = [str(folder / "frames" / video.replace("/", "_") / f"{index}.png") for index in range(len(frames))]
    for path in paths:
        (folder / "frames" / video.replace("/", "_")).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(path)
    output = {"image": [paths], "label": [{"name": video}], "pred": [frames]}
    saver = DetectionSaver(folder / "out", ("adenoma", "hyperplastic"), threshold=0.5, **options)
    saver.save(SimpleNamespace(state=SimpleNamespace(output=output)))
    return folder / "out" / video


def test_tables_hold_every_detection(tmp_path):
    folder = save(tmp_path, FRAMES)
    results = json.loads((folder / "detections.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in results] == [(1, 1), (1, 2), (2, 1), (2, 1), (4, 1)]
    assert results[0]["bbox"] == [10, 20, 30, 30]
    assert results[1]["score"] == pytest.approx(0.7)
    with open(folder / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[1]["class"] == "hyperplastic"
    assert [float(rows[2][side]) for side in ("x1", "y1", "x2", "y2")] == MOVED
    assert {row["video"] for row in rows} == {"colon/a"}


def test_cvat_gets_a_track_a_polyp(tmp_path):
    root = ElementTree.parse(save(tmp_path, FRAMES) / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == "4"
    assert (root.findtext("meta/task/original_size/width"), root.findtext("meta/task/original_size/height")) == (
        "80",
        "60",
    )
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == ["adenoma", "hyperplastic"]
    tracks = [
        (track.get("label"), [(int(box.get("frame")), box.get("outside")) for box in track.iterfind("box")])
        for track in root.iterfind("track")
    ]
    assert tracks == [
        ("adenoma", [(0, "0"), (1, "0"), (2, "1")]),
        ("hyperplastic", [(0, "0"), (1, "1")]),
        ("adenoma", [(3, "0")]),  # the video ends with it
    ]
    assert root.find("track/box").attrib["xbr"] == "40.00"


def test_overlay_shows_likely_boxes_at_their_place(tmp_path):
    with open_clip(save(tmp_path, FRAMES) / "overlay.mp4") as reader:
        frames = reader.read(range(4)).float()
    assert reader.probe().frames == 4
    bright = frames.amax(dim=0) > 60
    assert bright[0, 20:50, 10:40].any()
    assert bright[0, 5:20, 60:75].any()
    assert not bright[1, 5:20, 60:75].any()  # a score of 0.1
    assert not bright[2].any()
    assert not bright[0, 38:46, 15:35].any()  # only the outline, and the text at its top


def test_nothing_detected_is_written_too(tmp_path):
    folder = save(tmp_path, [detections()] * 3)
    assert json.loads((folder / "detections.json").read_text()) == []
    assert len((folder / "detections.csv").read_text().splitlines()) == 1
    assert ElementTree.parse(folder / "annotations.xml").getroot().find("track") is None
    with open_clip(folder / "overlay.mp4") as reader:
        assert reader.probe().frames == 3


def test_videos_with_frames_of_the_same_name_stay_apart(tmp_path):
    one = save(tmp_path, FRAMES, video="1/seq")
    two = save(tmp_path, [detections()] * 2, video="2/seq")
    assert len(json.loads((one / "detections.json").read_text())) == 5
    assert json.loads((two / "detections.json").read_text()) == []


def test_a_box_of_one_pixel_is_drawn(tmp_path):
    box = torch.tensor([[0.3, 0.3, 1.3, 1.3]])  # in float32 its width is less than 1
    drawn = draw_boxes(np.zeros((20, 20, 3), np.uint8), box, torch.tensor([1]))
    assert drawn[:2, :2].any()


def test_true_boxes_end_at_the_frame(tmp_path):
    write_video(tmp_path / "v.mp4", np.zeros((2, 48, 64, 3), np.uint8), 25)
    item = {"name": "v", "video": "v", "box": [[[-50, 10, 50, 40], [70, 5, 80, 9]], []], "box_label": [[2, 1], []]}
    pred, (clipped,) = videos_from_engine({"image": [str(tmp_path / "v.mp4")], "label": [item], "pred": ["found"]})
    assert pred == ["found"]
    assert [box.tolist() for box in clipped["box"]] == [[[0, 10, 50, 40]], []]
    assert [label.tolist() for label in clipped["box_label"]] == [[2], []]
    assert len(item["box"][0]) == 2


def test_unknown_format_is_named(tmp_path):
    with pytest.raises(ValueError, match="coco, csv, cvat, overlay, but got gif"):
        DetectionSaver(tmp_path, formats=("csv", "gif"))
