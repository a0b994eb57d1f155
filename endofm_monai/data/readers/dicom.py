# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import io
import math
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.datadict import keyword_for_tag
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, as_pixel_options, get_decoder
from scipy.special import expit

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError, clip_read_errors, likely_aspect
from endofm_monai.data.readers.video import VideoReader

__all__ = ["DicomReader", "open_dicom"]

_COLORS = "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"
_BEGINNINGS = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "  # of a JPEG, JPEG 2000 or JP2 frame
_RATES = "CineRate", "FrameTime", "FrameTimeVector", "RecommendedDisplayFrameRate"
_SIDES = "PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"  # the height first
_MAX_RATE = 1e4  # frames a second; high-speed cameras give less, and seconds in the place of milliseconds more
_GROUPS = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
_GRAY_LEVELS = "PixelValueTransformationSequence", "FrameVOILUTSequence"  # in a group


def open_dicom(path: str | os.PathLike, *, fps: float = 30.0, threads: int = 1) -> ClipReader:
    """Open a DICOM file: one that holds a video stream (MPEG-2, H.264, H.265) as a video, any other frame by frame."""
    path = os.fspath(path)
    with clip_read_errors(path, "is not a readable DICOM image"), open(path, "rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)  # some files lack their beginning
        implicit, little = header.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        plain = uid.ImplicitVRLittleEndian if implicit else explicit
        syntax = header.file_meta.setdefault("TransferSyntaxUID", plain).value
        if syntax.is_deflated:
            raise ClipReadError(f"{path}: is packed as a whole ({syntax.name}); store it in another transfer syntax")
        order = "<" if little else ">"  # where pydicom stops, the first element is that of the pixels
        if struct.unpack(f"{order}HH", file.read(4).ljust(4)) != (0x7FE0, 0x0010):
            raise ValueError("it holds no pixels")
        kind = "OW" if implicit else file.read(4)[:2].decode("ascii")
        (length,) = struct.unpack(f"{order}L", file.read(4))
        if length == 0xFFFFFFFF and not syntax.is_encapsulated:
            raise ValueError(f"it states {syntax.name}, or nothing, but its pixels are compressed")
        if syntax not in uid.MPEGTransferSyntaxes:
            return DicomReader(path, header, kind, file.tell(), length, fps)
        stream = get_frame(file, 0, number_of_frames=1)
    return VideoReader(path, file=io.BytesIO(stream), fps=stated_rate(header)[0] or fps, threads=threads)


def stated_numbers(dataset: pydicom.Dataset, name: str) -> list[float]:
    """Give the values of a field, none where it is missing, empty or text."""
    with suppress(TypeError, ValueError):
        return [float(value) for value in np.ravel(dataset.get(name))]
    return []


def stated_rate(header: pydicom.Dataset) -> tuple[float | None, list[float]]:
    """Give the frames per second, and the seconds from each frame to the next where these are listed."""
    pointers = [keyword_for_tag(int(tag)) for tag in stated_numbers(header, "FrameIncrementPointer")]
    for name in (*(name for name in pointers if name in _RATES), *_RATES):  # some point to numbers of pages or slices
        with suppress(IndexError, ZeroDivisionError):
            values, steps = stated_numbers(header, name), list[float]()
            if name == "FrameTimeVector":  # milliseconds; the first frame has no distance to another
                steps = [value / 1000 for value in values[1:]]
                values = [sum(values[1:]) / len(steps)]
            rate = values[0] if name.endswith("Rate") else 1000 / values[0]
            if 0 < rate < _MAX_RATE:
                return rate, steps
    return None, []


class DicomReader(ClipReader):
    """Reads a DICOM file with pydicom whose frames are stored one by one, compressed or not.

    Color frames become RGB. Gray ones are inverted where the file asks (MONOCHROME1). Values of another depth than 8
    bits are scaled to 0..255 from the window that the file states or, without a usable one, from all values that the
    stored bits can hold. Number and colors of the frames are taken from the pixels where the header cannot be right,
    and a warning says so. A file that is cut off has one frame more than it holds, which cannot be read.

    The pixels are of a ``kind``, "OB" or "OW", and begin at ``start`` in the file; their ``length`` in bytes may be
    unknown. The ``fps`` count where the file does not state a rate.
    """

    def __init__(
        self, path: str, header: pydicom.Dataset, kind: str, start: int, length: int, fps: float = 30.0
    ) -> None:
        super().__init__(path)
        self._header, self._start, self._fps = header, start, fps
        self._length = min(length, os.path.getsize(path) - start)
        for name in ("Rows", "Columns", "PhotometricInterpretation"):
            if not header.get(name):
                raise ClipReadError(f"{path}: its header states no {name}")
        if header.PhotometricInterpretation not in _COLORS:
            raise ClipReadError(f"{path}: its colors are {header.PhotometricInterpretation}, not one of {_COLORS}")
        usual = {"BitsStored": header.BitsAllocated, "PixelRepresentation": 0, "PlanarConfiguration": 0}
        for name, value in usual.items():  # as viewers take it where the header, as that of some converters, lacks it
            if header.get(name) is None:
                setattr(header, name, value)
        self._syntax = header.file_meta.TransferSyntaxUID
        self._decoder = get_decoder(self._syntax)
        if not self._decoder.is_available:
            missing = f"a package that is not installed: {' or '.join(self._decoder.missing_dependencies)}"
            raise ClipReadError(f"{path}: its pixels ({self._syntax.name}) need {missing}")
        self._stated = 1
        with suppress(TypeError, ValueError):
            self._stated = max(1, int(header.get("NumberOfFrames") or 1))
        header.NumberOfFrames = self._stated
        self._options: dict[str, Any] = {"pixel_keyword": "PixelData", "pixel_vr": kind, **as_pixel_options(header)}
        # Bits below the stored ones, which pydicom takes for the lowest. (Those that JPEG decodes are.)
        unused = (stated_numbers(header, "HighBit") or [0])[0] + 1 - header.BitsStored
        is_raw = not self._syntax.is_encapsulated or self._syntax == uid.RLELossless
        self._unused = int(unused) if is_raw and 0 < unused <= header.BitsAllocated - header.BitsStored else 0
        self._options["bits_stored"] += self._unused

    def _probe(self) -> ClipInfo:
        header, stated = self._header, self._stated
        found = self._find_frames() if self._syntax.is_encapsulated else self._count_frames()
        if not found:
            raise ClipReadError(f"{self.path}: ends within its first frame")
        if found > stated:
            self._warn(f"holds {found} frames, although its header states {stated}")
        frames = max(found, min(stated, found + 1))
        self._options["number_of_frames"] = frames
        rate, self._steps = stated_rate(header)
        fps = rate or self._fps
        stated_sides = (stated_numbers(header, name) for name in _SIDES)
        height, width = next((sides for sides in stated_sides if len(sides) == 2 and min(sides) > 0), (1, 1))
        return ClipInfo(frames, fps, header.Rows, header.Columns, frames / fps, likely_aspect(width, height))

    def _count_frames(self) -> int:
        """Count the whole frames that the file can hold without compression."""
        header = self._header
        bits = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated
        if header.PhotometricInterpretation == "YBR_FULL_422":
            if 0 <= self._length - self._stated * bits // 8 < 2:
                self._options["photometric_interpretation"] = "YBR_FULL"
                self._warn("has colors that are not subsampled, although its header states YBR_FULL_422")
            else:
                bits = bits * 2 // 3  # two pixels share their colors
        return self._length * 8 // bits

    def _find_frames(self) -> int:
        """Count the compressed frames, each of which is one fragment or more, and find the former."""
        with open(self.path, "rb") as file:
            file.seek(self._start)
            offsets = parse_basic_offsets(file)
            first = file.tell()
            count, fragments = parse_fragments(file)
            table = self._options.get("extended_offsets")
            listed = len(table[0]) // 8 if table else len(offsets)
            begun = 0 if listed or count <= self._stated else sum(self._begins_frame(file, each) for each in fragments)
            found = min(max(listed, self._stated, begun), count)
            if count == found and not table:
                file.seek(fragments[-1] + 4 if fragments else 0)
                ends = [*fragments[1:], file.tell() + 4 + int.from_bytes(file.read(4), "little")]
                lengths = [end - start - 8 for start, end in zip(fragments, ends, strict=False)]
                self._options["extended_offsets"] = [start - first for start in fragments], lengths
            if self._syntax in uid.JPEG2000TransferSyntaxes and "FULL" in self._header.PhotometricInterpretation:
                frame = self._frame(file, 0)
                if frame[frame.find(b"\xff\x52") + 8 :][:1] == b"\1":  # whose decoder undoes the transform
                    self._options["photometric_interpretation"] = "RGB"
                    self._warn("has frames that JPEG 2000 itself transforms, although its header states YBR_FULL")
        return found

    def _begins_frame(self, file: BinaryIO, fragment: int) -> bool:
        """Tell whether a frame begins with the fragment at this place; of RLE, each does."""
        file.seek(fragment + 8)
        return self._syntax == uid.RLELossless or file.read(8).startswith(_BEGINNINGS)

    def _on_levels(self, index: int) -> list[pydicom.Dataset]:
        """Give the places of fields on gray levels, of the file or of this frame."""
        datasets = [self._header]
        for sequence, place in zip(_GROUPS, (index, 0), strict=True):
            for group in (self._header.get(sequence) or [])[place : place + 1]:
                datasets += [item for part in _GRAY_LEVELS for item in group.get(part) or []]
        return datasets

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        is_jpeg = self._syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit) and self._header.SamplesPerPixel == 3
        with open(self.path, "rb") as file:
            for index in wanted:
                with clip_read_errors(self.path, f"frame {index} cannot be decoded"):
                    if is_jpeg and self._header.BitsStored == 8:
                        frame = self._read_jpeg(self._frame(file, index))
                    else:
                        file.seek(self._start)  # one frame at a time: pydicom reads several of YBR_FULL_422 wrongly
                        values = self._decoder.as_array(file, index=index, **self._options)[0]
                        frame = self._to_rgb(self._lowered(values) if self._unused else values, index)
                yield index, frame

    def _lowered(self, values: np.ndarray) -> np.ndarray:
        """Shift the stored bits down, unless they are the lowest after all: some files state another highest bit."""
        is_low = not (values >> self._header.BitsStored).any() and (values & (1 << self._unused) - 1).any()
        return values if is_low else values >> self._unused

    def _frame(self, file: BinaryIO, index: int) -> bytes:
        """Read a compressed frame."""
        file.seek(self._start)
        offsets = self._options.get("extended_offsets")
        return get_frame(file, index, number_of_frames=self._options["number_of_frames"], extended_offsets=offsets)

    def _read_jpeg(self, data: bytes) -> np.ndarray:
        """Decode JPEG in color: markers, names of components and subsampling tell more than pydicom looks at."""
        image: Any = Image.open(io.BytesIO(data), formats=["JPEG"])
        names, *sampling = zip(*[layer[:3] for layer in image.layer], strict=True)
        is_rgb = bytes(names) == b"RGB" and "jfif" not in image.info
        is_rgb = image.info.get("adobe_transform", 0 if is_rgb else 1) == 0
        is_open = not {"jfif", "adobe_transform"} & image.info.keys() and all(len(set(each)) == 1 for each in sampling)
        stated = self._header.PhotometricInterpretation
        if stated == "RGB" and is_open and not is_rgb:
            image.draft("YCbCr", image.size)  # as is: nothing but the header tells what it is
            return np.asarray(image)
        if (stated == "RGB") != is_rgb:
            self._warn(f"has {'RGB' if is_rgb else 'YCbCr'} in its JPEG frames, although its header states {stated}")
        return np.asarray(image.convert("RGB"))

    @cached_property
    def _palette(self) -> np.ndarray:
        """Color of each value, uint8 ``(N, 3)``: some files have 8 bits of it in entries of 16."""
        colors = apply_color_lut(np.arange(2 ** min(self._header.BitsStored, 16)), self._header)
        return (colors >> 8 * (colors.max() > 255)).astype(np.uint8)

    @cached_property
    def _modality_maximum(self) -> float:
        """The highest value of the modality's table, seldom all that its bits hold; makes pydicom able to read it."""
        descriptor = self._header.ModalityLUTSequence[0].LUTDescriptor
        number, first, bits = descriptor
        descriptor[2] = 16 if bits > 8 else 8  # pydicom knows no other
        return float(apply_modality_lut(first + np.arange(number or 2**16), self._header).max())

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.path}: {message}", stacklevel=3)

    def _to_rgb(self, frame: np.ndarray, index: int) -> np.ndarray:
        header = self._header
        if header.PhotometricInterpretation == "PALETTE COLOR":
            return self._palette[frame]
        if header.SamplesPerPixel == 1 or header.BitsStored != 8 or header.PixelRepresentation:
            frame = self._scale(frame, index)
        frame = frame.astype(np.uint8, copy=False)
        if header.PhotometricInterpretation == "MONOCHROME1":
            frame = 255 - frame
        return frame if frame.ndim == 3 else np.broadcast_to(frame[..., None], (*frame.shape, 3))

    def _scale(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Scale the stored values to 0..255, by slope and table or window (the first is the default) as stated."""
        header, places = self._header, self._on_levels(index)
        names = "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"
        stated = ([value for place in places for value in stated_numbers(place, name)] for name in names)
        slope, intercept, center, width = (values[0] if values else math.nan for values in stated)
        function = next(filter(None, (place.get("VOILUTFunction") for place in places)), "LINEAR")  # of the window
        slope = slope if slope and math.isfinite(slope) else 1.0
        intercept = intercept if math.isfinite(intercept) else 0.0
        low = -(2.0 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0.0
        low, high = sorted(end * slope + intercept for end in (low, low + 2.0**header.BitsStored - 1))
        values = frame * slope + intercept
        if header.get("ModalityLUTSequence"):
            low, high = 0, self._modality_maximum
            values = apply_modality_lut(frame, header)
        if tables := header.get("VOILUTSequence"):
            values = apply_voi(values.round().astype(np.int64), header)
            low, high = 0, 2 ** int(tables[0].LUTDescriptor[2]) - 1
        elif math.isfinite(center) and function == "SIGMOID" and 0 < width < math.inf:
            values, low, high = expit(4 * (values - center) / width), 0, 1
        elif math.isfinite(center) and function == "LINEAR_EXACT" and 0 < width < math.inf:
            low, high = center - width / 2, center + width / 2
        elif math.isfinite(center) and 1 <= width < math.inf:
            low = center - width / 2
            high = low + width - 1
        return ((values - low) * (255 / (high - low or 1e-9))).clip(0, 255).round()  # a window of 1: black and white
