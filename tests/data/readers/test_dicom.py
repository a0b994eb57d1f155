# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
from numbered_videos import write_video
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from endofm_monai.data import ClipReadError, VideoReader, open_clip, open_dicom
from tests.support.dicom import write_dicom

HEIGHT, WIDTH, FRAMES = 16, 24, 5  # as write_dicom states
GRAY = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


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
def test_video_stream(tmp_path: Path, container: str) -> None:
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


@pytest.mark.parametrize(("stated", "found"), [(None, 50), (25, 25)], ids=["by the file", "by the stream"])
def test_rate_of_a_bare_stream(tmp_path: Path, stated: int | None, found: float) -> None:
    stream, options = (
        tmp_path / "bare.hevc",
        {"x265-params": f"log-level=none:vui-timing-info={int(stated is not None)}"},
    )
    with av.open(str(stream), "w") as container:
        video = container.add_stream("libx265", rate=stated or 50, options=options)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(video.encode())
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_PARTIAL_420", "NumberOfFrames": 10, "FrameTime": 20}
    path = write_dicom(tmp_path / "video.dcm", encapsulate([stream.read_bytes()]), uid.HEVCMP51, **tags)
    assert open_dicom(path).probe().fps == found


@pytest.mark.parametrize(("bits", "size", "scale"), [(8, 1, 1), (16, 2, 257), (16, 2, 1), (8, 2, 1)])
def test_palette_color(tmp_path: Path, bits: int, size: int, scale: int) -> None:
    table = np.random.default_rng(2).integers(0, 256, (3, 256))
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in zip(("Red", "Green", "Blue"), table, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tags[f"{name}PaletteColorLookupTableData"] = (values * scale).astype(f"<u{size}").tobytes()
    path = write_dicom(tmp_path / "palette.dcm", GRAY.tobytes(), **tags)
    np.testing.assert_array_equal(read(path, [3, 0]), table.T[GRAY[[3, 0]]])


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

    palette = write_dicom(tmp_path / "palette.dcm", GRAY.tobytes(), PhotometricInterpretation="CMYK")
    with pytest.raises(ClipReadError, match=rf"^{palette}: its colors are CMYK, not one of"):
        open_dicom(palette)


PAIRS = COLOR[:, :, ::2].repeat(2, 2)  # two pixels share their colors


def to_ycc(frames: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in frames])


@pytest.mark.parametrize("wanted", [[0, 1], [2, 3], [3], [0, 1, 2, 3, 4]])
@pytest.mark.filterwarnings("ignore:.*not subsampled")
def test_colors_that_two_pixels_share(tmp_path: Path, wanted: list[int]) -> None:
    ycc = to_ycc(PAIRS)
    packed = np.stack([ycc[:, :, ::2, 0], ycc[:, :, 1::2, 0], ycc[:, :, ::2, 1], ycc[:, :, ::2, 2]], -1)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}
    for pixels in (packed, ycc):  # the latter are what the header cannot mean
        path = write_dicom(tmp_path / "pairs.dcm", pixels.tobytes(), **tags)
        np.testing.assert_allclose(read(path, wanted).astype(int), PAIRS[wanted], atol=3)


@pytest.mark.parametrize(
    ("tags", "fps"),
    [
        ({}, 30),
        ({"CineRate": 25, "FrameTime": 50}, 25),
        ({"FrameTime": 50, "RecommendedDisplayFrameRate": 10}, 20),
        ({"RecommendedDisplayFrameRate": 10}, 10),
        ({"FrameTimeVector": [0, 125, 125, 125, 125], "FrameIncrementPointer": 0x00181065, "CineRate": 30}, 8),
        ({"FrameTimeVector": [0, 100, 150, 100, 150]}, 8),
        ({"FrameTime": 50, "CineRate": 25, "FrameIncrementPointer": 0x00181063}, 20),
        ({"FrameTime": 50, "CineRate": 25, "FrameIncrementPointer": [0x00181063, 0x00200013]}, 20),
        ({"FrameIncrementPointer": 0x00182001, "PageNumberVector": [1, 2, 3, 4, 5]}, 30),
        ({"FrameIncrementPointer": 0x00182005, "SliceLocationVector": [0.5, 1, 2, 3, 4], "FrameTime": 50}, 20),
        ({"CineRate": 0, "FrameTime": "0", "RecommendedDisplayFrameRate": 10}, 10),
        ({"FrameTime": "NaN"}, 30),
        ({"FrameTime": -40}, 30),
        ({"FrameTimeVector": [0]}, 30),
    ],
)
def test_rates(tmp_path: Path, tags: dict[str, Any], fps: float) -> None:
    info = open_clip(write_dicom(tmp_path / "rate.dcm", GRAY.tobytes(), **tags)).probe()
    assert (info.frames, info.fps, info.height, info.width) == (FRAMES, fps, HEIGHT, WIDTH)
    assert info.duration == FRAMES / fps


def test_times_that_vary(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "rate.dcm", GRAY.tobytes(), FrameTimeVector=[0, 100, 150, 100, 150])
    np.testing.assert_allclose(open_clip(path).times(), [0, 0.1, 0.25, 0.35, 0.5])


def test_rates_that_are_text(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "rate.dcm", GRAY.tobytes(), FrameTime="12345678", CineRate="87654321")
    path.write_bytes(path.read_bytes().replace(b"12345678", b"quickly ").replace(b"87654321", b"fast    "))
    assert open_clip(path).probe().fps == 30


JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


def jpeg(frame: np.ndarray, marker: bytes = b"", named_123: bool = False, **options: Any) -> bytes:
    """A JPEG stream whose only marker of its colors is ``marker``, with components named 1, 2, 3 on request."""
    data = compress(frame, format="JPEG", quality=95, **options)
    kept, place = bytearray(data[:2] + marker), 2
    while data[place + 1] != 0xDA:
        size = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        kept += data[place : place + size] if data[place + 1] not in (0xE0, 0xEE) else b""
        place += size
    kept += data[place:]
    frame_names, scan_names = kept.index(b"\xff\xc0") + 10, kept.index(b"\xff\xda") + 5
    for number in range(3 * named_123):
        kept[frame_names + 3 * number] = kept[scan_names + 2 * number] = number + 1
    return bytes(kept)


@pytest.mark.parametrize(
    ("stream", "stated", "is_told"),
    [
        ({"subsampling": 2}, "RGB", True),
        ({"marker": JFIF, "subsampling": 0}, "RGB", True),
        ({"marker": ADOBE + b"\1", "subsampling": 0}, "RGB", True),
        ({"marker": ADOBE + b"\1"}, "YBR_FULL_422", False),
        ({"subsampling": 0}, "YBR_FULL", False),
        ({"keep_rgb": True}, "RGB", False),
        ({"keep_rgb": True}, "YBR_FULL_422", True),
        ({"keep_rgb": True, "marker": ADOBE + b"\0", "named_123": True}, "YBR_FULL", True),
        ({"keep_rgb": True, "named_123": True}, "RGB", False),  # nothing but the header tells
    ],
)
def test_jpeg_tells_its_colors(tmp_path: Path, stream: dict[str, Any], stated: str, is_told: bool) -> None:
    frames = [np.full((HEIGHT, WIDTH, 3), color, np.uint8) for color in ((200, 70, 60), (40, 80, 180))]
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": stated, "NumberOfFrames": 2}
    pixels = encapsulate([jpeg(frame, **stream) for frame in frames])
    path = write_dicom(tmp_path / "jpeg.dcm", pixels, uid.JPEGBaseline8Bit, **tags)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_allclose(read(path, [0, 1]).astype(int), frames, atol=4)
    told = [str(warning.message) for warning in caught if str(path) in str(warning.message)]
    assert bool(told) == is_told
    assert not told or "JPEG frames, although its header states" in told[0]


def test_jpeg_2000_tells_its_colors(tmp_path: Path) -> None:
    frames = [np.full((HEIGHT, WIDTH, 3), (200, 70, 60), np.uint8)] * 2
    pixels = encapsulate([compress(f, format="JPEG2000", irreversible=False, no_jp2=True, mct=1) for f in frames])
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "NumberOfFrames": 2}
    path = write_dicom(tmp_path / "frames.dcm", pixels, uid.JPEG2000Lossless, **tags)
    with pytest.warns(UserWarning, match="JPEG 2000 itself transforms"):
        np.testing.assert_array_equal(read(path, [0, 1]), frames)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("stated", [2_000_000_000, 3, 1, 0])
def test_what_is_there_bounds_the_number_of_frames(tmp_path: Path, compressed: bool, stated: int) -> None:
    pixels, syntax = GRAY.tobytes(), uid.ExplicitVRLittleEndian
    if compressed:
        frames = [compress(frame, format="JPEG2000", irreversible=False, no_jp2=True) for frame in GRAY]
        pixels, syntax = encapsulate(frames, has_bot=stated < FRAMES), uid.JPEG2000Lossless
    path = write_dicom(tmp_path / "stated.dcm", pixels, syntax, NumberOfFrames=stated)
    reader = open_clip(path)
    assert reader.probe().frames == (FRAMES + 1 if stated > FRAMES else FRAMES)
    np.testing.assert_array_equal(reader.read([4, 1])[0], GRAY[[4, 1]])
    if stated > FRAMES:
        with pytest.raises(ClipReadError, match=rf"^{path}: frame 5 cannot be decoded"):
            reader.read([0, FRAMES])


@pytest.mark.parametrize("name", ["Rows", "Columns", "PhotometricInterpretation", "BitsAllocated", "PixelData"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "missing.dcm", GRAY.tobytes())
    dataset = pydicom.dcmread(path)
    del dataset[name]
    dataset.save_as(path)
    with pytest.raises(ClipReadError, match=rf"^{path}: .*({name}|no pixels)[^\n]*$"):
        read_first(path)


@pytest.mark.parametrize("name", ["BitsStored", "PixelRepresentation", "PlanarConfiguration"])
def test_what_viewers_take_as_usual_may_be_missing(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "missing.dcm", COLOR.tobytes(), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    dataset = pydicom.dcmread(path)
    dataset[name].value = None
    dataset.save_as(path)
    np.testing.assert_array_equal(read(path, [1]), COLOR[[1]])
    del dataset[name]
    dataset.save_as(path)
    np.testing.assert_array_equal(read(path, [1]), COLOR[[1]])


def test_a_file_that_ends_in_its_first_frame(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "huge.dcm", GRAY.tobytes(), Rows=65535, Columns=65535)
    with pytest.raises(ClipReadError, match=rf"^{path}: ends within its first frame$"):
        read_first(path)


def read_first(path: Path) -> None:
    with open_clip(path) as reader:
        reader.read([0])
