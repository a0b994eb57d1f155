# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_files import items_of, prepare_set, script, write_mask
from PIL import Image


def test_polyp_free_windows_touch_no_polyp(prepared, tmp_path):
    source, _, _ = prepared("kvasir_seg")
    prepare_set("kvasir_seg", source, tmp_path / "set")
    cut = script("polyp_windows.py").cut
    for output in ("free", "again"):
        cut(str(tmp_path / "set"), str(tmp_path / output))
    lists, wholes = items_of(tmp_path / "free"), items_of(tmp_path / "set")
    assert {section: len(items) for section, items in lists.items()} == {
        section: len(items) for section, items in wholes.items()
    }
    for item in lists["test"]:
        (path,), (mask,) = item["image"], item["mask"]
        window = np.asarray(Image.open(tmp_path / "free" / path))
        assert window.shape == (33, 33, 3)  # 0.7 of the short side, to the right of the polyp: the largest that fits
        assert not np.asarray(Image.open(tmp_path / "free" / mask)).any()
        assert (item["label"], item["box"], item["box_label"]) == (0, [[]], [[]])
        whole = np.asarray(Image.open(tmp_path / "set/frames" / f"{Path(item['video']).name}.jpg"))
        assert any(np.array_equal(whole[row : row + 33, 31:], window) for row in range(16))
        assert np.array_equal(window, np.asarray(Image.open(tmp_path / "again" / path)))
    cut(str(tmp_path / "set"), str(tmp_path / "pairs"), pairs=True)
    for item in items_of(tmp_path / "pairs")["test"]:
        mask = np.asarray(Image.open(tmp_path / "pairs" / item["mask"][0]))
        assert mask.shape == (33, 33)
        assert ((mask > 0).sum() > 250) == bool(item["label"])
        assert len(item["box"][0]) == len(item["box_label"][0]) == item["label"]
        assert item["video"] == f"{item['label']}/{item['group']}"  # both windows of a still are one group


def test_windows_are_cut_out_of_stills_as_they_are_shown(tmp_path):
    shown = Image.fromarray(np.repeat(np.arange(40, 104, dtype=np.uint8)[None, :, None], 48, 0).repeat(3, 2))
    turned = Image.Exif()
    turned[0x0112] = 3  # half a turn
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    shown.rotate(180).save(tmp_path / "source/images/a.png", exif=turned)
    write_mask(tmp_path / "source/masks/a.png", (0, 8, 20, 24))
    (tmp_path / "source/kavsir_bboxes.json").write_text('{"a": {"height": 48, "width": 64, "bbox": []}}')
    prepare_set("kvasir_seg", tmp_path / "source", tmp_path / "set")
    cut = script("polyp_windows.py").cut
    cut(str(tmp_path / "set"), str(tmp_path / "free"))
    ((item,),) = items_of(tmp_path / "free").values()
    window = np.asarray(Image.open(tmp_path / "free" / item["image"][0]))
    assert window.min() >= 40 + 20  # to the right of the polyp
    with pytest.raises(ValueError, match="output: needs another folder than"):
        cut(str(tmp_path / "set"), str(tmp_path / "set"))


def test_no_window_shows_the_border_that_would_tell_the_classes_apart(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    pixels = np.full((48, 96, 3), 120, np.uint8)
    pixels[:, :20] = 0
    places = {"beside": (20, 10, 26, 34), "behind": (0, 10, 22, 34)}
    for name, box in places.items():
        Image.fromarray(pixels).save(tmp_path / f"source/images/{name}.png")
        write_mask(tmp_path / f"source/masks/{name}.png", box, size=(48, 96))
    boxes = {name: {"height": 48, "width": 96, "bbox": []} for name in places}
    (tmp_path / "source/kavsir_bboxes.json").write_text(json.dumps(boxes))
    prepare_set("kvasir_seg", tmp_path / "source", tmp_path / "set")
    script("polyp_windows.py").cut(str(tmp_path / "set"), str(tmp_path / "pairs"), pairs=True)
    (items,) = items_of(tmp_path / "pairs").values()
    assert [item["video"] for item in items] == ["0/beside", "1/beside"]
    windows = [np.asarray(Image.open(tmp_path / "pairs" / item["image"][0])) for item in items]
    assert min(window.min() for window in windows) == 120


def test_windows_are_of_stills_alone(prepared, tmp_path):
    with pytest.raises(ValueError, match="sequence_01 in training is no still with a mask"):
        script("polyp_windows.py").cut(str(prepared("cvc_clinicdb")[1]), str(tmp_path))
