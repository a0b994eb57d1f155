# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from endofm_monai.data import ClipReadError, mask_boxes, mask_files, read_mask
from tests.support.pictures import write_gray_tiff, write_png_16


def square(value: int) -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = value
    return mask


@pytest.mark.parametrize(("name", "value"), [("a.png", 255), ("b.png", 1), ("c.jpg", 255), ("d.tif", 255)])
def test_masks_of_all_kinds(tmp_path, name, value):
    Image.fromarray(square(value)).save(tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name), square(1) == 1)


@pytest.mark.parametrize(("bits", "value"), [(8, 255), (8, 1), (12, 4095), (16, 65535), (16, 255), (16, 1), (32, 1)])
def test_tiff_masks_of_any_depth_and_of_either_white(tmp_path, bits, value):
    path = write_gray_tiff(tmp_path / "mask.tif", square(1).astype(int) * value, bits)
    np.testing.assert_array_equal(read_mask(path), square(1) == 1)
    if bits in (8, 16):
        write_gray_tiff(path, 2**bits - 1 - square(1).astype(int) * value, bits, white=0)
        np.testing.assert_array_equal(read_mask(path), square(1) == 1)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"photometric": "minisblack"}])
def test_bools_of_tifffile_are_foreground_where_they_are_true(tmp_path, options):
    tifffile.imwrite(tmp_path / "mask.tif", square(1) > 0, **options)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), square(1) == 1)


def test_a_negative_without_a_known_range_is_refused(tmp_path):
    path = write_gray_tiff(tmp_path / "mask.tif", 1.0 - square(1), bits=32, white=0)
    with pytest.raises(ClipReadError, match=r"mask\.tif: is not a readable mask \(its white is 0, .* no known black"):
        read_mask(path)


def test_an_rgb_and_an_empty_mask(tmp_path):
    Image.fromarray(square(255)).convert("RGB").save(tmp_path / "rgb.png")
    assert read_mask(tmp_path / "rgb.png").sum() == 600
    Image.fromarray(square(0)).save(tmp_path / "empty.png")
    assert not read_mask(tmp_path / "empty.png").any()
    assert mask_boxes(read_mask(tmp_path / "empty.png")) == []


def test_what_is_no_mask_is_refused(tmp_path):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "picture.png")
    with pytest.raises(
        ClipReadError, match=r"picture\.png: a mask must hold 0 and 255, .* but holds 0, 1, 2, .*\.\.\."
    ):
        read_mask(tmp_path / "picture.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ClipReadError, match=r"broken\.png: is not a readable mask"):
        read_mask(tmp_path / "broken.png")


def test_a_clean_mask_has_no_values_between(tmp_path):
    mask = square(255)
    mask[10, 20:50] = 128
    Image.fromarray(mask).save(tmp_path / "soft.png")
    assert read_mask(tmp_path / "soft.png").sum() == 600
    with pytest.raises(ClipReadError, match="but holds 0, 128, 255"):
        read_mask(tmp_path / "soft.png", clean=True)


def palette_mask(colors: list[int], mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask, "P")
    image.putpalette(colors + [0] * (768 - len(colors)))
    return image


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: palette_mask([0, 0, 0, 128, 0, 0], square(1)),  # as CVAT and VOC write
        lambda: palette_mask([0, 0, 0, 255, 255, 255], square(1)),
        lambda: palette_mask([0, 0, 0, 1, 1, 1], square(1)),
        lambda: Image.fromarray(np.stack([square(255), square(0), square(0)], 2)),
        lambda: Image.fromarray(np.stack([square(3), square(200), square(90)], 2)).convert("RGBA"),
        lambda: Image.fromarray(square(255)).convert("1"),
        lambda: Image.fromarray(square(255).astype(np.uint16) * 257),
    ],
    ids=["voc", "white", "dark", "red", "green", "bilevel", "16 bits"],
)
def test_any_one_color_is_foreground(tmp_path, make, clean):
    make().save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", clean), square(1) == 1)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: Image.fromarray(square(100)), "0, 100$"),
        (lambda: palette_mask([0, 0, 0, 128, 0, 0, 0, 128, 0], square(1) + np.roll(square(1), 5)), "#000000, #008000"),
        (lambda: palette_mask([0] * 6, square(1)), "0$"),
        (lambda: Image.fromarray(np.stack([square(255), np.roll(square(255), 5), square(0)], 2)), "#000000, #00ff00"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path, make, found):
    make().save(tmp_path / "mask.png")
    with pytest.raises(ClipReadError, match=rf"mask\.png: a mask must hold .* but holds .*{found}"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("quality", [95, 100])
def test_a_jpeg_of_0_and_1_is_refused(tmp_path, quality):
    Image.fromarray(square(1)).save(tmp_path / "mask.jpg", quality=quality)
    with pytest.raises(ClipReadError, match=r"mask\.jpg: a mask must hold .* but holds 0, 1, which JPEG does not keep"):
        read_mask(tmp_path / "mask.jpg")


def test_a_dark_mask_is_not_taken_for_noise(tmp_path):
    mask = np.random.RandomState(0).randint(0, 9, (40, 60)).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "noise.png")
    assert not read_mask(tmp_path / "noise.png").any()
    mask[:2, :2] = 120
    Image.fromarray(mask).save(tmp_path / "dark.png")
    with pytest.raises(ClipReadError, match="but holds 0, 1, 2"):
        read_mask(tmp_path / "dark.png")


def test_boxes_enclose_separate_regions_but_no_specks():
    mask = square(1) == 1
    mask[2:8, 2:8] = True
    mask[35:37, 2:4] = True
    assert mask_boxes(mask) == [[2, 2, 8, 8], [20, 10, 50, 30]]
    assert mask_boxes(mask, min_area=1)[-1] == [2, 35, 4, 37]


def classes(*values: int) -> np.ndarray:
    """A map of classes: a square and a part of it."""
    mask = square(values[0])
    mask[15:25, 25:40] = values[-1]
    return mask


def faded(color: int, alpha: int = 255) -> Image.Image:
    """A picture of one color whose alpha alone shows a square."""
    return Image.fromarray(np.dstack([np.full((40, 60, 3), color, np.uint8), square(alpha)]))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: Image.fromarray(classes(2)), "0, 2"),
        (lambda: Image.fromarray(classes(1, 2)), "0, 1, 2"),
        (lambda: Image.fromarray(classes(1, 255)), "0, 1, 255"),
        (lambda: Image.fromarray(classes(255, 100)), "0, 100, 255"),
        (lambda: Image.fromarray(square(254) + np.uint8(1)), "1, 255"),
        (lambda: Image.fromarray(np.dstack([1 - square(1), square(1), square(0)])), "#000100, #010000"),
        (lambda: faded(255), "255 of opacity 0, 255"),
        (lambda: faded(0), "0 of opacity 0, 255"),
        (lambda: faded(0).convert("LA"), "0 of opacity 0, 255"),
        (lambda: faded(0, 128), "0 of opacity 0, 128"),
        (lambda: Image.fromarray(classes(1, 255).astype(np.uint16) * 257), "0, 257, 65535"),
    ],
    ids=[
        "one class",
        "two classes",
        "void",
        "gray in white",
        "1 and white",
        "one-hot",
        "white",
        "black",
        "black of LA",
        "half",
        "16 bits",
    ],
)
def test_a_class_is_never_taken_for_noise(tmp_path, make, found):
    make().save(tmp_path / "mask.png")
    with pytest.raises(ClipReadError, match=rf"mask\.png: a mask must hold .* but holds {found}$"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("value", [1, 255, 65535])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colors_of_16_bits_are_not_read_by_half(tmp_path, channels, value):
    levels = np.repeat(square(1)[..., None].astype(np.uint16) * value, channels, 2)
    paths = [write_png_16(tmp_path / "mask.png", levels)]
    for planes in ("contig", "separate") if channels == 3 else ():
        paths.append(tmp_path / f"{planes}.tif")
        stored = levels if planes == "contig" else levels.transpose(2, 0, 1)
        tifffile.imwrite(paths[-1], stored, photometric="rgb", planarconfig=planes)
    for path in paths:
        with pytest.raises(ClipReadError, match=rf"{path.name}: is not a readable mask \(its colors have 16 bits, "):
            read_mask(path)


@pytest.mark.parametrize("quality", [18, 30, 40, 70, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_masks_are_read_pixel_by_pixel(tmp_path, quality, mode):
    far = np.kron(square(1), np.ones((4, 4), np.uint8))  # blocks of 8 pixels without an outline are not black at 70
    for mask in (far, 0 * far):
        Image.fromarray(mask * 255).convert(mode).save(tmp_path / "mask.jpg", quality=quality)
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.jpg"), mask == 1)


def test_a_stack_is_no_mask(tmp_path):
    first, second = (Image.fromarray(square(value)) for value in (0, 255))
    first.save(tmp_path / "mask.tif", save_all=True, append_images=[second])
    with pytest.raises(ClipReadError, match=r"mask\.tif: holds 2 pictures, but a mask is one"):
        read_mask(tmp_path / "mask.tif")


def make(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.png").touch()
    return folder


@pytest.mark.parametrize(
    ("frames", "masks"),
    [
        (("1", "2", "10"), ("1", "2", "10")),
        (("1", "2", "10"), ("001", "002", "010")),
        (("f1", "f2", "f10"), ("mask_1", "mask_3", "mask_4")),
        (("f0", "f1", "f2"), ("1_mask", "2_mask", "3_mask")),
        (("f1", "f5", "f6"), ("1_mask", "5_mask", "6_mask")),
        (("a", "b"), ("x", "y")),
        (("1",), ("0", "1")),  # a stack, for all that its name says
    ],
)
def test_masks_of_a_folder_are_named_as_their_frames_or_all_otherwise(tmp_path, frames, masks):
    clip, folder = make(tmp_path / "clip", *frames), make(tmp_path / "masks", *masks)
    expected = [folder / f"{name}.png" for name in masks]
    assert mask_files(str(folder), str(clip)) == expected
    assert mask_files(folder, [str(clip / f"{name}.png") for name in frames]) == expected
    assert mask_files(expected, clip) == expected


@pytest.mark.parametrize(
    ("masks", "frame", "mask"),
    [
        (("1", "3", "4"), "2", "3"),
        (("1", "2", "3", "4"), "4", "3"),
        (("1", "4"), "2", "4"),
        (("0", "1", "2"), "1", "0"),
        (("1_mask", "3_mask", "4_mask"), "2", "3_mask"),
        (("mask_1", "mask_2", "mask_9"), "4", "mask_9"),
    ],
)
def test_masks_of_other_frames_of_a_folder_are_named(tmp_path, masks, frame, mask):
    clip, folder = make(tmp_path / "clip", "1", "2", "4"), make(tmp_path / "masks", *masks)
    message = rf"^{folder}/{mask}\.png: is where the mask of {clip}/{frame}\.png is expected[^\n]*$"
    for source in (str(clip), [clip / f"{name}.png" for name in ("1", "2", "4")]):
        with pytest.raises(ClipReadError, match=message):
            mask_files(folder, source)


def test_masks_of_a_part_of_a_folder_are_those_of_its_frames(tmp_path):
    clip = make(tmp_path / "clip", "1", "2", "4", "5")
    assert len(mask_files(make(tmp_path / "masks", "2", "4"), f"{clip}#frames=1-2")) == 2
    with pytest.raises(ClipReadError, match=r"masks/2\.png: is where the mask of .*clip/4\.png is"):
        mask_files(tmp_path / "masks", f"{clip}#frames=2-3")
