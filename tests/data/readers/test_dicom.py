# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from endofm_monai.data import ClipReadError, VideoReader, open_dicom

HEIGHT, WIDTH, FRAMES = 16, 24, 5
GRAY = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


def write_dicom(path: Path, pixels: bytes, syntax: uid.UID = uid.ExplicitVRLittleEndian, **tags: Any) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = uid.MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    defaults = {
        "Rows": HEIGHT,
        "Columns": WIDTH,
        "NumberOfFrames": FRAMES,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "PixelRepresentation": 0,
    }
    for name, value in {**defaults, **tags}.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated == 16 else "OB"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    dataset.save_as(path, enforce_file_format=True)
    return path


def read(path: Path, indices: list[int]) -> np.ndarray:
    with open_dicom(path) as reader:
        return reader.read(indices).permute(1, 2, 3, 0).numpy()


def test_gray_and_inverted_gray(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "gray.dcm", GRAY.tobytes())
    np.testing.assert_array_equal(read(path, [4, 1]), GRAY[[4, 1], ..., None].repeat(3, -1))
    path = write_dicom(tmp_path / "inverted.dcm", GRAY.tobytes(), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(path, [0])[0, ..., 0], 255 - GRAY[0])


@pytest.mark.parametrize("colors", ["RGB", "YBR_FULL"])
def test_color(tmp_path: Path, colors: str) -> None:
    pixels = COLOR
    if colors == "YBR_FULL":
        pixels = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in COLOR])
    path = write_dicom(tmp_path / "color.dcm", pixels.tobytes(), SamplesPerPixel=3, PhotometricInterpretation=colors)
    clip = read(path, [3, 0, 3])
    np.testing.assert_allclose(clip.astype(int), COLOR[[3, 0, 3]], atol=0 if colors == "RGB" else 3)


@pytest.mark.parametrize(("bits", "signed"), [(16, False), (12, False), (12, True)])
def test_deep_pixels_use_all_stored_bits(tmp_path: Path, bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, GRAY.size).round().astype(np.int16 if signed else np.uint16)
    path = write_dicom(
        tmp_path / "deep.dcm", values.tobytes(), BitsAllocated=16, BitsStored=bits, PixelRepresentation=int(signed)
    )
    frames = read(path, list(range(FRAMES)))[..., 0].ravel()
    np.testing.assert_array_equal(frames, np.round((values.astype(float) - low) * 255 / (2**bits - 1)))


def test_window_applies_to_rescaled_values(tmp_path: Path) -> None:
    values = np.arange(GRAY.size, dtype=np.uint16)
    path = write_dicom(
        tmp_path / "window.dcm",
        values.tobytes(),
        BitsAllocated=16,
        BitsStored=16,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[100, 0],
        WindowWidth=[201, 50],
    )
    # DICOM's linear function: black up to center - 0.5 - (width - 1) / 2, white from center - 0.5 + (width - 1) / 2
    expected = (((2.0 * values - 1000 - 99.5) / 200 + 0.5) * 255).clip(0, 255).round()
    np.testing.assert_array_equal(read(path, list(range(FRAMES)))[..., 1].ravel(), expected)


def compress(frame: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("syntax", "colors", "options"),
    [
        (uid.JPEGBaseline8Bit, "YBR_FULL_422", {"format": "JPEG", "quality": 95}),
        (uid.JPEG2000Lossless, "YBR_RCT", {"format": "JPEG2000", "irreversible": False, "no_jp2": True, "mct": 1}),
    ],
    ids=["JPEG", "JPEG 2000"],
)
def test_encapsulated_frames(tmp_path: Path, syntax: uid.UID, colors: str, options: dict[str, Any]) -> None:
    smooth = np.stack([np.asarray(Image.fromarray(frame[:2, :2]).resize((WIDTH, HEIGHT))) for frame in COLOR])
    pixels = encapsulate([compress(frame, **options) for frame in smooth])
    path = write_dicom(tmp_path / "frames.dcm", pixels, syntax, SamplesPerPixel=3, PhotometricInterpretation=colors)
    clip = read(path, [4, 1, 1])
    np.testing.assert_allclose(clip.astype(int), smooth[[4, 1, 1]], atol=8 if "quality" in options else 0)


@pytest.mark.parametrize("container", ["mp4", "ts"])
def test_video_stream(tmp_path: Path, write_video: Any, container: str) -> None:
    video = write_video(tmp_path / f"video.{container}", options={"g": "12"})
    pixels = encapsulate([video.read_bytes()])
    path = write_dicom(
        tmp_path / "video.dcm",
        pixels,
        uid.MPEG4HP41,
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_PARTIAL_420",
        NumberOfFrames=48,
    )
    reader = open_dicom(path)
    assert reader.probe() == VideoReader(video).probe()
    assert reader.read([40, 3]).equal(VideoReader(video).read([40, 3]))


@pytest.mark.parametrize(
    ("tags", "fps"),
    [
        ({"CineRate": 25, "FrameTime": 50}, 25),
        ({"FrameTime": 50, "RecommendedDisplayFrameRate": 10}, 20),
        ({"RecommendedDisplayFrameRate": 10}, 10),
        ({}, 30),
    ],
)
def test_probe(tmp_path: Path, tags: dict[str, Any], fps: float) -> None:
    info = open_dicom(write_dicom(tmp_path / "gray.dcm", GRAY.tobytes(), **tags)).probe()
    assert (info.frames, info.fps, info.height, info.width) == (FRAMES, fps, HEIGHT, WIDTH)
    assert info.duration == FRAMES / fps


def test_single_frame_states_no_number(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "one.dcm", GRAY[0].tobytes(), NumberOfFrames=None)
    assert open_dicom(path).probe().frames == 1
    np.testing.assert_array_equal(read(path, [0])[0, ..., 2], GRAY[0])


def test_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = encapsulate([compress(frame, format="JPEG") for frame in COLOR])
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}
    path = write_dicom(tmp_path / "frames.dcm", pixels, uid.JPEGBaseline8Bit, **tags)
    decoder = get_decoder(uid.JPEGBaseline8Bit)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"pillow": ("pillow>=10.0.0",)})
    with pytest.raises(ClipReadError, match=rf"^{path}: its pixels \(JPEG Baseline .* not installed: .*pillow>=10"):
        open_dicom(path)


def test_broken_files(tmp_path: Path) -> None:
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM")
    with pytest.raises(ClipReadError, match=rf"^{text}: is not a readable DICOM image"):
        open_dicom(text)

    cut = write_dicom(tmp_path / "cut.dcm", GRAY.tobytes())
    cut.write_bytes(cut.read_bytes()[:-100])
    assert read(cut, [0]).shape == (1, HEIGHT, WIDTH, 3)
    with pytest.raises(ClipReadError, match=rf"^{cut}: frame 4 cannot be decoded"):
        read(cut, [0, 4])

    frames = [compress(COLOR[0], format="JPEG"), b"no JPEG "]
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "NumberOfFrames": 2}
    damaged = write_dicom(tmp_path / "damaged.dcm", encapsulate(frames), uid.JPEGBaseline8Bit, **tags)
    assert read(damaged, [0]).shape == (1, HEIGHT, WIDTH, 3)
    with pytest.raises(ClipReadError, match=rf"^{damaged}: frame 1 cannot be decoded \([^\n]+\)$"):
        read(damaged, [1])

    palette = write_dicom(tmp_path / "palette.dcm", GRAY.tobytes(), PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(ClipReadError, match=rf"^{palette}: its colors are PALETTE COLOR, not one of"):
        open_dicom(palette)
