# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import ClipDataset, ClipReadError
from endofm_monai.transforms import LoadClip, LoadClipd, LoadMasks, LoadMasksd


@pytest.fixture
def folder(tmp_path):
    """Four frames and masks; mask t is a column at t."""
    for index in range(4):
        Image.new("RGB", (12, 10), (index, 0, 0)).save(tmp_path / f"frame{index}.png")
        mask = np.zeros((10, 12), np.uint8)
        mask[:, index] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{index}.png")
    return tmp_path


def paths(folder, kind: str, count: int = 4) -> list:
    return [folder / f"{kind}{index}.png" for index in range(count)]


def save(folder, array: np.ndarray) -> None:
    Image.fromarray(array).save(folder / "mask2.png")


def test_reads_the_masks_of_the_frames_that_were_read(folder):
    clip = LoadClip(num_frames=2)(paths(folder, "frame"))  # the first and the last
    masks = LoadMasks()(paths(folder, "mask"), clip)
    assert masks.shape == (1, 2, 10, 12)
    assert [masks[0, t].any(0).nonzero().flatten().tolist() for t in range(2)] == [[0], [3]]


@pytest.mark.parametrize("store", ["folder", "one and zero", "gray as rgb", "bilevel"])
def test_masks_are_stored_in_many_ways(folder, tmp_path_factory, store):
    clip, masks = LoadClip()(paths(folder, "frame")), paths(folder, "mask")
    expected = LoadMasks()(masks, clip)
    if store == "folder":
        masks = tmp_path_factory.mktemp("masks")
        for path in paths(folder, "mask"):
            path.rename(masks / path.name)
    else:
        image = Image.open(masks[2])
        if store == "one and zero":
            image = Image.fromarray(np.asarray(image) // 255)
        image.convert({"gray as rgb": "RGB", "bilevel": "1"}.get(store, "L")).save(masks[2])
    assert (LoadMasks()(masks, clip) == expected).all()


def test_no_foreground_is_a_mask(folder):
    save(folder, np.zeros((10, 12), np.uint8))
    assert LoadMasks()(paths(folder, "mask"), LoadClip()(paths(folder, "frame")))[0, 2].sum() == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: save(folder, np.full((10, 12), 128, np.uint8)), r"mask2\.png.*but holds 128"),
        (lambda folder: save(folder, np.eye(10, 12, dtype=np.uint8) * 254), r"mask2\.png.*but holds 0, 254"),
        (lambda folder: save(folder, np.zeros((10, 13), np.uint8)), r"mask2\.png.*10x13.*10x12"),
        (lambda folder: (folder / "mask2.png").unlink(), r"mask2\.png.*not a readable mask"),
        (lambda folder: (folder / "mask2.png").write_bytes(b"no image"), r"mask2\.png.*not a readable mask"),
    ],
)
def test_a_bad_mask_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ClipReadError, match=message):
        LoadMasks()(paths(folder, "mask"), LoadClip()(paths(folder, "frame")))


@pytest.mark.parametrize("count", [3, 5])
def test_every_frame_needs_one_mask(folder, count):
    clip = LoadClip()(paths(folder, "frame"))
    with pytest.raises(ClipReadError, match=rf"frame0\.png: has 4 frames, but {count} masks"):
        LoadMasks()(paths(folder, "mask", count), clip)
    with pytest.raises(ClipReadError, match="frame 1 has no mask"):
        LoadMasks()([folder / "mask0.png", None, *paths(folder, "mask")[2:]], clip)


def test_reference_takes_any_other_value_for_background(folder):
    save(folder, np.array([[254, 255] * 6] * 10, np.uint8))
    masks = LoadMasks(reference_values=True)(paths(folder, "mask"), LoadClip()(paths(folder, "frame")))
    assert masks[0, 2].tolist() == [[0, 1] * 6] * 10


def test_dataset_reports_a_bad_mask_like_a_bad_clip(folder):
    save(folder, np.full((10, 12), 7, np.uint8))
    item = {"image": paths(folder, "frame"), "mask": paths(folder, "mask"), "label": 1}
    transform = [LoadClipd("image"), LoadMasksd("mask")]
    assert "mask2.png" in ClipDataset([item], lambda d: transform[1](transform[0](d)))[0]["broken"]
