# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import io
import os
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import MPEGTransferSyntaxes

from endofm_monai.data.readers.base import ClipInfo, ClipReader, ClipReadError
from endofm_monai.data.readers.video import VideoReader

__all__ = ["DicomReader", "open_dicom"]

_COLORS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def open_dicom(path: str | os.PathLike, *, fps: float = 30.0, threads: int = 1) -> ClipReader:
    """Open a DICOM file: one that holds a video stream (MPEG-2, H.264, H.265) as a video, any other frame by frame.

    Args:
        path: the file.
        fps: frames per second, where the file does not state them.
        threads: decoding threads for a video stream.
    """
    path = os.fspath(path)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.file_meta.TransferSyntaxUID not in MPEGTransferSyntaxes:
            return DicomReader(path, header, fps=fps)
        stream = get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise ClipReadError(f"{path}: is not a readable DICOM image ({error})") from error
    return VideoReader(path, file=io.BytesIO(stream), threads=threads)


class DicomReader(ClipReader):
    """Reads a DICOM file with pydicom whose frames are stored one by one, compressed or not.

    Color frames become RGB. Gray ones are inverted where the file asks (MONOCHROME1). Values of another depth than 8
    bits are scaled to 0..255 from the window that the file states or, without one, from all values that the stored
    bits can hold. Only wanted frames are decoded.

    Args:
        path: the file.
        header: what the file holds apart from its pixels.
        fps: frames per second, where the file does not state them.
    """

    def __init__(self, path: str, header: pydicom.Dataset, *, fps: float = 30.0) -> None:
        super().__init__(path)
        self._header = header
        self._fps = fps
        if header.PhotometricInterpretation not in _COLORS:
            raise ClipReadError(f"{path}: its colors are {header.PhotometricInterpretation}, not one of {_COLORS}")
        syntax = header.file_meta.TransferSyntaxUID
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise ClipReadError(f"{path}: {error}") from error
        if not decoder.is_available:
            missing = " or ".join(decoder.missing_dependencies)
            raise ClipReadError(f"{path}: its pixels ({syntax.name}) need a package that is not installed: {missing}")

    def _probe(self) -> ClipInfo:
        header = self._header
        frames = int(header.get("NumberOfFrames") or 1)
        fps = float(header.get("CineRate") or 0)
        fps = fps or (1000 / float(header.FrameTime) if header.get("FrameTime") else 0)  # milliseconds
        fps = fps or float(header.get("RecommendedDisplayFrameRate") or self._fps)
        return ClipInfo(frames, fps, header.Rows, header.Columns, duration=frames / fps)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        frames = iter_pixels(self.path, indices=wanted)
        for index in wanted:
            try:
                yield index, self._to_rgb(next(frames))
            except Exception as error:  # each of pydicom's decoders raises its own
                reason = " ".join(str(error).split())  # some take several lines
                raise ClipReadError(f"{self.path}: frame {index} cannot be decoded ({reason})") from error

    def _to_rgb(self, frame: np.ndarray) -> np.ndarray:
        header = self._header
        if header.BitsStored != 8 or header.PixelRepresentation:
            low = -(2.0 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0.0
            high = low + 2.0**header.BitsStored - 1
            slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
            values = frame * slope + intercept
            low, high = low * slope + intercept, high * slope + intercept
            if "WindowCenter" in header:  # there may be several windows: the first one is the default
                center, width = (float(np.ravel(header[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
                low, high = center - width / 2, center + width / 2 - 1
            frame = ((values - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)
        if header.PhotometricInterpretation == "MONOCHROME1":
            frame = 255 - frame
        return frame if frame.ndim == 3 else np.broadcast_to(frame[..., None], (*frame.shape, 3))
