# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures whose EXIF data ask to turn them, with what was drawn on them as they are shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from small_sets import make_scene

from endofm_monai.data import open_clip, read_mask
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset
from endofm_monai.preparation.sources import FrameBoxes, read_boxed_video
from tests.support.pictures import write_pages, write_turned


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_boxes_and_masks_fit_what_is_shown(tmp_path, suffix):
    shown, mask = make_scene(0), np.zeros((72, 96), np.uint8)
    mask[30:60, 50:90] = 255
    for folder in ("images", "boxes"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    image = write_turned(tmp_path / f"in/images/1{suffix}", shown)
    (tmp_path / "in/boxes/1.txt").touch()
    boxed = read_boxed_video(
        "boxed", image.parent, tmp_path / "in/boxes", ".txt", lambda _: FrameBoxes([[50, 30, 89, 59]], [1], (96, 72))
    )
    assert (boxed.frame_labels["box"], boxed.notes) == ([[[50, 30, 89, 59]]], [])

    Image.fromarray(mask).save(tmp_path / "in/upright.png")
    turned = write_turned(tmp_path / "in/turned.png", mask)
    np.testing.assert_array_equal(read_mask(turned), mask > 0)
    masked = SourceVideo("masked", [image, image], masks=[tmp_path / "in/upright.png", turned], mask_label=1)
    prepare_dataset(
        SourceDataset("test set", "none"),
        [masked],
        tmp_path / "in",
        tmp_path / "out",
        workers=1,
        stats=False,
        mode="copy",
    )
    item = json.loads((tmp_path / "out/datalist.json").read_text())["training"][0]
    assert item["box"] == [[[50, 30, 90, 60]]] * 2
    with open_clip([tmp_path / "out" / path for path in item["image"]]) as reader:
        frames = reader.read([0, 1]).permute(1, 2, 3, 0).numpy()
    assert abs(frames.astype(int) - shown).mean() < (6 if suffix == ".jpg" else 1e-9)


def test_a_stack_is_no_single_frame(tmp_path):
    path = write_pages(tmp_path / "stack.tif", [make_scene(0), make_scene(1)])
    listed = SourceVideo("a", [path], frame_labels={"box": [[]]})
    with pytest.raises(ValueError, match=r"stack\.tif: holds 2 images, expected one"):
        prepare_dataset(SourceDataset("test set", "none"), [listed], tmp_path, tmp_path / "out", workers=1)
