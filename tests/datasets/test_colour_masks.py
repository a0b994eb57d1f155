# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from dataset_files import prepare_set
from PIL import Image

from endofm_monai.data import UniformFrames, load_datalist
from endofm_monai.formats import outlines_from_masks, write_video
from endofm_monai.transforms import LoadClipd, LoadMasksd


def test_every_door_reads_masks_of_any_color_alike(tmp_path, capsys):
    """A mask is the same polyp to preparation, training and formats, or an error in all of them; never empty."""
    region = np.zeros((96, 160), np.uint8)
    region[30:60, 40:80] = 1
    palette = Image.fromarray(region, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)  # as VOC and CVAT write
    red = Image.fromarray(np.stack([region * 255, region * 0, region * 0], 2))
    masks = {"white": Image.fromarray(region * 255), "voc": palette, "red": red, "gray": Image.fromarray(region * 100)}
    source, boxes = tmp_path / "Kvasir", {}
    for number, (name, mask) in enumerate(masks.items()):
        for folder in ("images", "masks"):
            (source / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((96, 160, 3), 40 * number, np.uint8)).save(source / f"images/{name}.png")
        mask.save(source / f"masks/{name}.png")
        box = {"label": "polyp", "xmin": 40, "ymin": 30, "xmax": 80, "ymax": 60}
        boxes[name] = {"height": 96, "width": 160, "bbox": [box]}
    (source / "kavsir_bboxes.json").write_text(json.dumps(boxes))

    datalist = prepare_set("kvasir_seg", source, tmp_path / "out")
    refused = "gray.png: a mask must hold 0 and 255, 0 and 1, or black and one color, but holds 0, 100"
    assert refused in capsys.readouterr().out
    listed = json.loads(Path(datalist).read_text(encoding="utf-8"))
    items = [
        item
        for section in ("training", "validation", "test")
        if section in listed
        for item in load_datalist(tmp_path / "out", datalist, section, label_key="mask")
    ]
    assert len(items) == 3
    load = [LoadClipd("image", UniformFrames(1)), LoadMasksd("mask")]
    for item in items:
        assert int(load[1](load[0](item))["label"].sum()) == 1200
    for name in ("white", "voc", "red"):
        item = {"image": [str(source / f"images/{name}.png")], "mask": [str(source / f"masks/{name}.png")]}
        assert int(load[1](load[0](item))["label"].sum()) == 1200
        assert outlines_from_masks(item["mask"]) == [[{"label": 1, "mask": [40, 30, 40, 30, 0, 1200]}]]


def test_a_source_whose_name_is_not_utf_8_keeps_its_number(tmp_path):
    for name in (os.fsdecode(b"K\xf6ln.mp4"), "a.mp4"):
        write_video(tmp_path / "videos" / name, np.zeros((4, 32, 32, 3), np.uint8) + len(name), 25)
    for _ in range(2):
        prepare_set("own_videos", tmp_path / "videos", tmp_path / "out", mode="index")
    table = (tmp_path / "out" / "private" / "sources.csv").read_text(encoding="utf-8")
    assert table.split() == ["number,source", "1,a.mp4", r"2,K\udcf6ln.mp4"]
    items = json.loads((tmp_path / "out" / "datalist.json").read_text(encoding="utf-8"))["training"]
    assert len(items) == 2
