# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import ClipReadError, FramesReader

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)


def write_frames(folder: Path, pixels: Any = PIXELS) -> list[Path]:
    folder.mkdir()
    files = [folder / f"frame{number}.png" for number in range(len(pixels))]
    for file, frame in zip(files, pixels, strict=True):
        Image.fromarray(frame).save(file)
    return files


def test_folder_in_natural_order(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    reader = FramesReader(tmp_path / "clip", fps=24)
    info = reader.probe()
    assert (info.frames, info.fps, info.height, info.width, info.duration) == (12, 24, 5, 7, 0.5)
    clip = reader.read([11, 2, 2])
    assert clip.shape == (3, 3, 5, 7)
    np.testing.assert_array_equal(clip.permute(1, 2, 3, 0), PIXELS[[11, 2, 2]])


def test_list_keeps_its_order(tmp_path: Path) -> None:
    files = write_frames(tmp_path / "clip")
    clip = FramesReader([files[3], str(files[1])]).read([0, 1])
    np.testing.assert_array_equal(clip.permute(1, 2, 3, 0), PIXELS[[3, 1]])


GRAY = PIXELS[0, ..., 0]
ALPHA = np.dstack([PIXELS[0], GRAY])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GRAY), np.dstack([GRAY] * 3)),
        (Image.fromarray(ALPHA), PIXELS[0]),
        (Image.fromarray(GRAY.astype(np.uint16) * 256 + 255), np.dstack([GRAY] * 3)),
        (Image.fromarray(PIXELS[0]).quantize(256), PIXELS[0]),
    ],
    ids=["gray", "alpha", "16 bits", "palette"],
)
def test_any_png_becomes_rgb(tmp_path: Path, image: Image.Image, expected: np.ndarray) -> None:
    image.save(tmp_path / "frame.png")
    np.testing.assert_array_equal(FramesReader([tmp_path / "frame.png"]).read([0])[:, 0].permute(1, 2, 0), expected)


def test_image_is_turned_as_its_exif_data_ask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: shown after a clockwise quarter turn
    Image.fromarray(PIXELS[0]).save(tmp_path / "frame.png", exif=exif)
    reader = FramesReader([tmp_path / "frame.png"])
    assert (reader.probe().height, reader.probe().width) == (7, 5)
    np.testing.assert_array_equal(reader.read([0])[:, 0].permute(1, 2, 0), np.rot90(PIXELS[0], -1))


def test_frames_of_different_sizes_are_named(tmp_path: Path) -> None:
    files = write_frames(tmp_path / "clip", [PIXELS[0], PIXELS[1], PIXELS[2, :4]])
    reader = FramesReader(tmp_path / "clip")
    assert reader.read([0, 1]).shape == (3, 2, 5, 7)
    with pytest.raises(ClipReadError, match=rf"^{files[2]}: has 4x7 .* but {files[0]} of the same clip has 5x7$"):
        reader.read([0, 2])


def test_broken_frame_is_named(tmp_path: Path) -> None:
    files = write_frames(tmp_path / "clip")
    files[3].write_bytes(files[3].read_bytes()[:60])
    files[4].write_text("no image")
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "clip" / "frame12.tif")
    for index in (3, 4, 12):
        with pytest.raises(ClipReadError, match=rf"^{tmp_path}/clip/frame{index}\.\w+: is not a readable image \("):
            FramesReader(tmp_path / "clip").read([index])


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ClipReadError, match=f"^{tmp_path}: holds no frame images$"):
        FramesReader(tmp_path)
    with pytest.raises(ClipReadError, match="holds no frame images"):
        FramesReader([])
