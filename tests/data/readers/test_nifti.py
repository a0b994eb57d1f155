# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel import openers

from endofm_monai.data import ClipReadError, NiftiReader, open_clip

WIDTH, HEIGHT, FRAMES = 7, 5, 4
GRAY = np.random.default_rng(0).integers(0, 256, (WIDTH, HEIGHT, FRAMES), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (WIDTH, HEIGHT, FRAMES, 3), dtype=np.uint8)
RGB_PIXELS = COLOR.copy().view([(name, "u1") for name in "RGB"])[..., 0]


def write(path: Path, values: np.ndarray, **header: float) -> Path:
    image = nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1]))
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("values", "colors"),
    [
        (GRAY, GRAY[..., None]),
        (GRAY[:, :, None], GRAY[..., None]),
        (GRAY[..., 0], GRAY[..., :1, None]),
        (COLOR, COLOR),
        (COLOR[:, :, None], COLOR),
        (GRAY[..., None], GRAY[..., None]),
        (COLOR[:, :, :, None], COLOR),
        (RGB_PIXELS, COLOR),
        (RGB_PIXELS[:, :, None], COLOR),
        (RGB_PIXELS[..., 0], COLOR[..., :1, :]),
    ],
    ids=["XYT", "XY1T", "XY", "XYT3", "XY1T3", "XYT1", "XYT13", "XYT RGB", "XY1T RGB", "XY RGB"],
)
def test_every_layout_gives_rows_first(tmp_path: Path, suffix: str, values: np.ndarray, colors: np.ndarray) -> None:
    reader = NiftiReader(write(tmp_path / f"clip{suffix}", values))
    frames = colors.shape[2]
    info = reader.probe()
    assert (info.frames, info.height, info.width, info.fps) == (frames, HEIGHT, WIDTH, 30)
    clip = reader.read([frames - 1, 0])
    expected = np.broadcast_to(colors, (WIDTH, HEIGHT, frames, 3)).transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(clip, expected[:, [frames - 1, 0]])


def test_other_types_are_scaled_by_the_range_of_the_clip_or_of_the_header(tmp_path: Path) -> None:
    values = np.linspace(-1000, 1000, 2 * 3 * 5).reshape(2, 3, 5).astype(np.int16)
    clip = NiftiReader(write(tmp_path / "clip.nii", values)).read([0, 4])
    np.testing.assert_array_equal(clip[1, 0], np.round((values[..., 0].T + 1000.0) * 255 / 2000))
    assert (clip[0, 0, 0, 0], clip[0, 1, 2, 1]) == (0, 255)
    clip = NiftiReader(write(tmp_path / "window.nii", values, cal_min=0, cal_max=500)).read([0, 4])
    np.testing.assert_array_equal(clip[2, 1], np.round(values[..., 4].T.clip(0, 500) * 255.0 / 500))
    constant = NiftiReader(write(tmp_path / "constant.nii", np.full((2, 3, 5), 7.0, np.float32))).read([2])
    assert constant.unique().tolist() == [0]


@pytest.mark.parametrize(("unit", "step", "fps"), [("sec", 0.04, 25), ("msec", 50, 20), ("unknown", 1, 30)])
def test_frame_rate_of_the_header(tmp_path: Path, unit: str, step: float, fps: float) -> None:
    image = nibabel.Nifti1Image(GRAY[:, :, None], np.eye(4))
    image.header.set_zooms((1, 1, 1, step))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, tmp_path / "clip.nii")
    info = NiftiReader(tmp_path / "clip.nii").probe()
    assert info.fps == pytest.approx(fps)
    assert info.duration == pytest.approx(FRAMES / fps)


@pytest.mark.parametrize(("side", "aspect"), [(2, 0.5), (0, 1), (np.nan, 1), (1000, 1)])
def test_pixels_have_the_shape_that_the_header_tells(tmp_path: Path, side: float, aspect: float) -> None:
    path = write(tmp_path / "clip.nii", GRAY, pixdim=[1, 1, side, 1, 1, 1, 1, 1])
    assert NiftiReader(path).probe().pixel_aspect == aspect


@pytest.mark.parametrize("shape", [(4, 4, 3, 5), (4, 4, 2, 5, 3), (4, 0, 3)])
def test_what_is_no_clip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "volumes.nii", np.zeros(shape, np.uint8))
    with pytest.raises(ClipReadError, match=rf"^{path}: has shape \({shape[0]}, .* but a clip has shape"):
        NiftiReader(path)


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(b"no image")
    with pytest.raises(ClipReadError, match=f"^{path}: is not a readable NIfTI image"):
        NiftiReader(path)
    data = write(tmp_path / "cut.nii", GRAY).read_bytes()
    (tmp_path / "cut.nii").write_bytes(data[:-100])
    with pytest.raises(ClipReadError, match=rf"^{tmp_path}/cut.nii: cannot be read to its end"):
        NiftiReader(tmp_path / "cut.nii").read([3])


def read_all(path: Path) -> np.ndarray:
    with open_clip(path) as reader:
        return reader.read(range(FRAMES)).numpy()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.nii.gz", GRAY).read_bytes()
    path = tmp_path / "damaged.nii.gz"
    for damaged in (whole[: len(whole) // 2], whole[:40] + bytes(80) + whole[120:], whole[:20], b""):
        path.write_bytes(damaged)
        with pytest.raises(ClipReadError, match=rf"^{path}: [^\n]+$"):
            read_all(path)


def test_what_is_there_bounds_the_number_of_frames(tmp_path: Path) -> None:
    path = tmp_path / "stated.nii"
    nibabel.save(nibabel.Nifti2Image(GRAY, np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[16 + 3 * 8 : 16 + 4 * 8] = (10**12).to_bytes(8, "little")  # the length of the third axis
    path.write_bytes(data)
    reader = open_clip(path)
    frames = reader.probe().frames
    assert FRAMES < frames < 1000
    np.testing.assert_array_equal(reader.read([FRAMES - 1])[0, 0], GRAY[..., -1].T)
    with pytest.raises(ClipReadError, match=r"stated\.nii: cannot be read to its end"):
        reader.read([frames - 1])


@pytest.mark.parametrize("step", [np.nan, np.inf, 0])
def test_a_rate_that_is_none(tmp_path: Path, step: float) -> None:
    image = nibabel.Nifti1Image(GRAY[:, :, None], np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = step
    nibabel.save(image, tmp_path / "clip.nii")
    assert open_clip(tmp_path / "clip.nii").probe().fps == 30


def test_display_range_that_is_none(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
    clip = NiftiReader(write(tmp_path / "window.nii", values, cal_min=np.nan, cal_max=5)).read([0, 4])
    assert (clip.min(), clip.max()) == (0, 255)
    reader = NiftiReader(write(tmp_path / "complex.nii", values.astype(np.complex64)))
    with pytest.raises(ClipReadError, match=r"complex\.nii: its values are complex numbers"):
        reader.read([0])


@pytest.mark.parametrize("outlier", [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite_have_no_part_in_the_range(tmp_path: Path, outlier: float) -> None:
    values = np.linspace(-1000, 1000, 2 * 3 * 5).reshape(2, 3, 5).astype(np.float32)
    expected = np.round((values.T[:, None] + 1000.0) * 255 / 2000)
    values[1, 2, 3] = outlier
    expected[3, 0, 2, 1] = 255 if outlier == np.inf else 0
    clip = NiftiReader(write(tmp_path / "clip.nii", values)).read(range(5))
    np.testing.assert_array_equal(clip[0], expected[:, 0])
    path = write(tmp_path / "none.nii", np.full((2, 3, 5), outlier, np.float32))
    with pytest.raises(ClipReadError, match=rf"^{path}: has no finite value$"):
        NiftiReader(path).read([0])


def test_a_packed_file_is_opened_once_for_all_frames_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class Opener(openers.ImageOpener):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

    path = write(tmp_path / "clip.nii.gz", GRAY)
    monkeypatch.setattr(openers, "ImageOpener", Opener)
    with open_clip(path) as reader:
        for index in range(FRAMES):
            np.testing.assert_array_equal(reader.read([index])[0, 0], GRAY[..., index].T)
        assert [file.closed for file in opened] == [False]
    assert [file.closed for file in opened] == [True]


def test_a_fork_leaves_its_parent_the_place_in_the_file(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 256, (64, 64, 100), dtype=np.uint8)
    with open_clip(write(tmp_path / "clip.nii.gz", values)) as reader:
        reader.read([0])
        process = multiprocessing.get_context("fork").Process(target=reader.read, args=([99],))
        process.start()
        process.join()
        assert process.exitcode == 0
        np.testing.assert_array_equal(reader.read([50])[0, 0], values[..., 50].T)
