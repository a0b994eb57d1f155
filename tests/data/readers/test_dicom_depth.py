# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Gray levels of DICOM by the fields that tell their range, and compressed frames that the header does not count."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from endofm_monai.data import ClipReadError, open_dicom
from tests.support.dicom import write_dicom

LEVELS = np.linspace(0, 4095, 16 * 24).round().astype(np.uint16)
WHOLE = LEVELS / 4095 * 255


def windowed(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """The linear function of DICOM (PS3.3 C.11.2.1.2.1)."""
    inside = (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5
    return np.select(
        [values <= center - 0.5 - (width - 1) / 2, values > center - 0.5 + (width - 1) / 2], [0, 1], inside
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, WHOLE),
        ({"WindowCenter": "", "WindowWidth": ""}, WHOLE),
        ({"WindowCenter": 2048}, WHOLE),
        ({"WindowWidth": 100}, WHOLE),
        ({"WindowCenter": 2048, "WindowWidth": 0}, WHOLE),
        ({"WindowCenter": 2048, "WindowWidth": -100}, WHOLE),
        ({"WindowCenter": "NaN", "WindowWidth": 100}, WHOLE),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, WHOLE),
        ({"RescaleSlope": 0, "RescaleIntercept": 7}, WHOLE),
        ({"RescaleSlope": 2, "RescaleIntercept": -1000}, WHOLE),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, 255 - WHOLE),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095, "PhotometricInterpretation": "MONOCHROME1"}, WHOLE),
        ({"WindowCenter": 2048, "WindowWidth": 1}, 255 * windowed(LEVELS, 2048, 1)),
        ({"WindowCenter": 1000, "WindowWidth": 2}, 255 * windowed(LEVELS, 1000, 2)),
        ({"WindowCenter": 1000, "WindowWidth": 900}, 255 * windowed(LEVELS, 1000, 900)),
        (
            {"WindowCenter": 1000, "WindowWidth": 900, "RescaleSlope": -1, "RescaleIntercept": 4095},
            255 * windowed(4095.0 - LEVELS, 1000, 900),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*value:UserWarning")
def test_a_range_is_what_usable_fields_say(tmp_path: Path, tags: dict[str, Any], expected: np.ndarray) -> None:
    tags = {"BitsAllocated": 16, "BitsStored": 12, "NumberOfFrames": 1, **tags}
    with open_dicom(write_dicom(tmp_path / "deep.dcm", LEVELS.tobytes(), **tags)) as reader:
        frame = reader.read([0])[0, 0].numpy()
    assert np.abs(frame.ravel() - expected).max() <= 0.51


@pytest.mark.parametrize("in_group", [False, True])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", ((LEVELS / 4095 - 0.25) / 0.5).clip(0, 1)),
        ("SIGMOID", 1 / (1 + np.exp(-4 * (LEVELS / 4095 - 0.5) / 0.5))),
    ],
)
def test_a_window_of_another_function(tmp_path: Path, function: str, expected: np.ndarray, in_group: bool) -> None:
    tags: dict[str, Any] = {"WindowCenter": 0.5, "WindowWidth": 0.5, "VOILUTFunction": function}
    if in_group:
        group, part = pydicom.Dataset(), pydicom.Dataset()
        for name, value in tags.items():
            setattr(part, name, value)
        group.FrameVOILUTSequence = [part]
        tags = {"PerFrameFunctionalGroupsSequence": [group]}
    tags |= {"RescaleSlope": f"{1 / 4095:.12f}", "BitsAllocated": 16, "BitsStored": 12, "NumberOfFrames": 1}
    with open_dicom(write_dicom(tmp_path / "deep.dcm", LEVELS.tobytes(), **tags)) as reader:
        frame = reader.read([0])[0, 0].numpy()
    assert np.abs(frame.ravel() - 255 * expected).max() <= 0.51


BYTES = np.arange(16 * 24, dtype=np.uint8) % 250


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"WindowCenter": 128, "WindowWidth": 256}, BYTES),
        ({"RescaleSlope": -1, "RescaleIntercept": 255}, 255.0 - BYTES),
        ({"WindowCenter": 30, "WindowWidth": 60}, 255 * windowed(BYTES, 30, 60)),
        (
            {"WindowCenter": 30, "WindowWidth": 60, "PhotometricInterpretation": "MONOCHROME1"},
            255 * (1 - windowed(BYTES, 30, 60)),
        ),
    ],
)
def test_8_bits_have_a_range_too(tmp_path: Path, tags: dict[str, Any], expected: np.ndarray) -> None:
    with open_dicom(write_dicom(tmp_path / "gray.dcm", BYTES.tobytes(), NumberOfFrames=1, **tags)) as reader:
        frame = reader.read([0])[1, 0].numpy()
    assert np.abs(frame.ravel() - expected).max() <= 0.51


def test_a_range_of_each_frame_and_of_all(tmp_path: Path) -> None:
    def group(**levels: float) -> pydicom.Dataset:
        item, part = pydicom.Dataset(), pydicom.Dataset()
        for name, value in levels.items():
            setattr(part, name, value)
        kind = "FrameVOILUTSequence" if "WindowCenter" in levels else "PixelValueTransformationSequence"
        setattr(item, kind, [part])
        return item

    tags = {
        "SharedFunctionalGroupsSequence": [group(RescaleSlope=2, RescaleIntercept=-1000)],
        "PerFrameFunctionalGroupsSequence": [group(WindowCenter=c, WindowWidth=900) for c in (1000, 3000)],
    }
    tags |= {"BitsAllocated": 16, "BitsStored": 12, "NumberOfFrames": 2}
    with open_dicom(write_dicom(tmp_path / "enhanced.dcm", LEVELS.tobytes() * 2, **tags)) as reader:
        frames = reader.read([0, 1])[0].numpy().reshape(2, -1)
    for frame, center in zip(frames, (1000, 3000), strict=True):
        assert np.abs(frame - 255 * windowed(2.0 * LEVELS - 1000, center, 900)).max() <= 0.51


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_of_gray_levels(tmp_path: Path, kind: str) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], (65535 - np.arange(4096) * 16).astype("<u2").tobytes()
    tags = {"BitsAllocated": 16, "BitsStored": 12, "NumberOfFrames": 1, kind: [table]}
    with open_dicom(write_dicom(tmp_path / "table.dcm", LEVELS.tobytes(), **tags)) as reader:
        frame = reader.read([0])[0, 0].numpy()
    assert np.abs(frame.ravel() - (65535 - 16.0 * LEVELS) / 65535 * 255).max() <= 0.51


@pytest.mark.parametrize("bits", [12, 16])
def test_a_table_of_gray_levels_that_changes_none(tmp_path: Path, bits: int) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, bits], np.arange(4096, dtype="<u2").tobytes()
    tags = {"BitsAllocated": 16, "BitsStored": 12, "NumberOfFrames": 1, "ModalityLUTSequence": [table]}
    path = write_dicom(tmp_path / "table.dcm", LEVELS.tobytes(), **tags)
    assert np.abs(open_dicom(path).read([0])[0, 0].numpy().ravel() - WHOLE).max() <= 0.51


@pytest.mark.parametrize("first", [0, 2048])
def test_stored_bits_are_the_highest_where_the_header_says_so(tmp_path: Path, first: int) -> None:
    pixels = ((LEVELS.astype(np.int32) - first) << 4).astype(np.uint16) + 9  # as overlays have it
    tags = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 15, "NumberOfFrames": 1}
    path = write_dicom(tmp_path / "high.dcm", pixels.tobytes(), PixelRepresentation=int(first > 0), **tags)
    assert np.abs(open_dicom(path).read([0])[0, 0].numpy().ravel() - WHOLE).max() <= 0.51


def test_stored_bits_are_the_lowest_where_the_pixels_show_it(tmp_path: Path) -> None:
    tags = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 15, "NumberOfFrames": 1}
    path = write_dicom(tmp_path / "low.dcm", LEVELS.tobytes(), **tags)
    assert np.abs(open_dicom(path).read([0])[0, 0].numpy().ravel() - WHOLE).max() <= 0.51


def test_8_of_16_bits_are_kept(tmp_path: Path) -> None:
    levels = np.arange(5 * 16 * 24, dtype=np.uint16) % 256
    with open_dicom(write_dicom(tmp_path / "half.dcm", levels.tobytes(), BitsAllocated=16)) as reader:
        frames = [frame for _, frame in reader.stream(range(5))]
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(np.stack(frames)[..., 1].ravel(), levels)


@pytest.mark.parametrize(("sides", "aspect"), [([2, 1], 0.5), ([0, 0], 1), ("", 1)])
def test_pixels_are_square_where_no_ratio_is_told(tmp_path: Path, sides: Any, aspect: float) -> None:
    path = write_dicom(tmp_path / "ratio.dcm", bytes(5 * 16 * 24), PixelAspectRatio=sides)
    assert open_dicom(path).probe().pixel_aspect == aspect


@pytest.mark.parametrize("name", ["PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"])
def test_pixels_are_as_far_apart_as_the_file_tells(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "ratio.dcm", bytes(5 * 16 * 24), **{name: [2, 3]})
    assert open_dicom(path).probe().pixel_aspect == 1.5


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_files_without_their_beginning_are_read(tmp_path: Path, syntax: uid.UID) -> None:
    pixels = np.arange(5 * 16 * 24, dtype=np.uint8)
    data = write_dicom(tmp_path / "whole.dcm", pixels.tobytes(), syntax).read_bytes()
    for name, start in (("preamble.dcm", 132), ("meta.dcm", 144 + int.from_bytes(data[140:144], "little"))):
        (tmp_path / name).write_bytes(data[start:])
        np.testing.assert_array_equal(open_dicom(tmp_path / name).read([4])[0, 0].ravel(), pixels[-16 * 24 :])


def test_compressed_pixels_of_no_syntax_are_no_pixels(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "some.dcm", encapsulate([bytes(16 * 24)] * 5), uid.JPEGBaseline8Bit)
    data = path.read_bytes()
    path.write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
    with pytest.raises(ClipReadError, match=rf"^{path}: is not a readable DICOM image .* pixels are compressed"):
        open_dicom(path)


def test_seconds_in_the_place_of_milliseconds_are_no_rate(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "some.dcm", bytes(5 * 16 * 24), FrameTime="0.04", RecommendedDisplayFrameRate=25)
    assert open_dicom(path).probe().fps == 25


def test_a_file_that_is_packed_as_a_whole_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "packed.dcm", bytes(5 * 16 * 24), uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(
        ClipReadError, match=rf"^{path}: is packed as a whole \(Deflated [^\n]*another transfer syntax$"
    ):
        open_dicom(path)


def compress(level: int, **options: Any) -> bytes:
    pixels = np.full((16, 24, 3), level, np.uint8)
    pixels[:, ::2] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


JPEG = uid.JPEGBaseline8Bit, "YBR_FULL_422", {"format": "JPEG"}
JPEG_2000 = uid.JPEG2000Lossless, "YBR_RCT", {"format": "JPEG2000", "irreversible": False, "no_jp2": True, "mct": 1}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("stated", [None, 1, 3, 5])
@pytest.mark.parametrize(("syntax", "colors", "options"), [JPEG, JPEG_2000], ids=["JPEG", "JPEG 2000"])
def test_compressed_frames_are_counted_where_they_begin(
    tmp_path: Path, syntax: uid.UID, colors: str, options: dict[str, Any], stated: int | None, parts: int
) -> None:
    pixels = encapsulate([compress(50 * k, **options) for k in range(5)], fragments_per_frame=parts, has_bot=False)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": colors, "NumberOfFrames": stated}
    path = write_dicom(tmp_path / "frames.dcm", pixels, syntax, **tags)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_dicom(path) as reader:
            assert reader.probe().frames == 5
            clip = reader.read(range(5))[0].float()
    told = [str(warning.message) for warning in caught if "holds" in str(warning.message)]
    assert told == ([] if stated == 5 else [f"{path}: holds 5 frames, although its header states {stated or 1}"])
    assert clip[:, :, 1::2].mean((1, 2)).tolist() == pytest.approx([0, 50, 100, 150, 200], abs=30)


def test_fragments_of_one_frame_are_one_frame(tmp_path: Path) -> None:
    pixels = encapsulate([compress(100, format="JPEG")], fragments_per_frame=4, has_bot=False)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "NumberOfFrames": None}
    with open_dicom(write_dicom(tmp_path / "one.dcm", pixels, uid.JPEGBaseline8Bit, **tags)) as reader:
        assert reader.read([0]).shape == (3, reader.probe().frames, 16, 24) == (3, 1, 16, 24)


def test_an_extended_offset_table_counts_too(tmp_path: Path) -> None:
    pixels, offsets, lengths = encapsulate_extended([compress(50 * k, format="JPEG") for k in range(5)])
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "NumberOfFrames": 2}
    tags |= {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    path = write_dicom(tmp_path / "table.dcm", pixels, uid.JPEGBaseline8Bit, **tags)
    with pytest.warns(UserWarning, match="holds 5 frames, although its header states 2"):
        assert open_dicom(path).probe().frames == 5


def test_every_fragment_of_rle_is_a_frame(tmp_path: Path) -> None:
    levels = (np.arange(5 * 16 * 24) // 7).astype(np.uint8)
    dataset = pydicom.dcmread(write_dicom(tmp_path / "plain.dcm", levels.tobytes()))
    dataset.compress(uid.RLELossless)
    pixels = encapsulate(list(generate_frames(dataset.PixelData, number_of_frames=5)), has_bot=False)
    path = write_dicom(tmp_path / "rle.dcm", pixels, uid.RLELossless, NumberOfFrames=2)
    with pytest.warns(UserWarning, match="holds 5 frames"), open_dicom(path) as reader:
        np.testing.assert_array_equal(reader.read(range(5))[0].ravel(), levels)
