# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

__all__ = [
    "IMAGE_SUFFIXES", "ClipInfo", "ClipReadError", "ClipReader", "FrameRangeReader", "clip_images", "clip_read_errors",
    "first_frame", "frame_images", "join_frames", "natural_key", "split_frames",
]  # fmt: skip

_MAX_ASPECT = 4.0  # of pixels
_RANGE = re.compile(r"#frames=(\d+)-(\d+)$")

# The one list of what is found in folders; a file that is named is opened by what it holds.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".avi", ".divx", ".dv", ".mkv", ".webm", ".ogv"),
    *(".ogm", ".flv", ".f4v", ".wmv", ".asf", ".wtv", ".mxf", ".gxf", ".rm", ".rmvb", ".mpg", ".mpeg", ".mpe", ".m1v"),
    *(".m2v", ".m2p", ".mpv", ".vob", ".vro", ".mod", ".tod", ".ts", ".mts", ".m2ts", ".m2t", ".trp", ".tp", ".h264"),
    *(".264", ".h265", ".265", ".hevc", ".obu", ".mjpg", ".mjpeg", ".ivf", ".nut", ".y4m"),
)
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".jpx", ".j2k", ".j2c", ".bmp", ".tif", ".tiff"),
    *(".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
DICOM_SUFFIXES, NIFTI_SUFFIXES = (".dcm", ".dicom"), (".nii.gz", ".nii")
CLIP_SUFFIXES = VIDEO_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES

# Folders of systems, network disks and cameras beside the users' own: wastebaskets, snapshots, thumbnails, what is
# found again.
_SYSTEM_FOLDERS = (
    *("#recycle", "#snapshot", "$recycle.bin", "@__thumb", "@eadir", "@recently-snapshot", "@recycle", "__macosx"),
    *("lost+found", "network trash folder", "recycler", "system volume information", "thmbnl", "~snapshot"),
)


class ClipReadError(ValueError):
    """A clip, or a frame of it, cannot be read. The message is one line and starts with the clip's path."""

    def __init__(self, message: str) -> None:
        super().__init__("\\n".join(message.splitlines()))


@contextmanager
def clip_read_errors(path: str | os.PathLike[str], problem: str = "cannot be read") -> Iterator[None]:
    """Turn whatever a library raises on the content of a file into a ``ClipReadError``: ``path: problem (reason)``."""
    try:
        yield
    except ClipReadError:
        raise
    except Exception as error:  # libraries raise anything on a damaged file, MemoryError and RecursionError, too
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise ClipReadError(f"{os.fspath(path)}: {problem} ({reason})") from error


@dataclass(frozen=True)
class ClipInfo:
    """What is known about a clip before its frames are decoded."""

    frames: int  # that the clip should hold, at least 1
    fps: float  # on the mean
    height: int  # of a frame as it is shown (after rotation), in pixels
    width: int
    duration: float  # in seconds
    pixel_aspect: float = field(default=1.0, repr=False)  # width by height of a pixel; frames are not stretched by it


def likely_aspect(width: float, height: float) -> float:
    """Give width by height of a pixel, or 1 where such sides are made up."""
    return width / height if height > 0 and 1 / _MAX_ASPECT <= width / height <= _MAX_ASPECT else 1.0


class ClipReader(AbstractContextManager["ClipReader"]):
    """Random access to the frames of one clip, whatever it is stored in.

    A subclass says what the clip holds (``_probe``) and decodes the frames that are asked for (``_decode``). In error
    messages ``path`` names the clip: its file, its folder, or its first frame.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._info: ClipInfo | None = None
        self._steps: Sequence[float] = ()  # seconds from each frame to the next, where they vary

    def probe(self) -> ClipInfo:
        """Give the number, rate and size of the frames, at the cost of at most one decoded frame."""
        if self._info is None:
            with clip_read_errors(self.path):
                self._info = self._probe()
        return self._info

    def times(self) -> np.ndarray:
        """Give when each frame is shown, in seconds from the first one: float64 ``(frames,)``, strictly rising."""
        info = self.probe()
        if len(self._steps) == info.frames - 1 > 0 and min(self._steps) > 0:
            return np.append(0, np.cumsum(self._steps))
        return np.arange(info.frames) / info.fps

    def read(self, indices: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Read frames, counted from 0 as they are shown, in any order and with repetitions: each is decoded once.

        Gives uint8 RGB ``(3, T, H, W)``, laid out in memory as ``(T, H, W, 3)``. A frame that is outside the clip,
        cannot be decoded, or differs in size from the first one is a ``ClipReadError``.
        """
        info, wanted = self.probe(), np.asarray(indices, np.int64)
        with clip_read_errors(self.path):
            clip = np.empty((len(wanted), info.height, info.width, 3), np.uint8)
        for index, frame in self.stream(np.unique(wanted).tolist()):
            clip[wanted == index] = frame
        return torch.from_numpy(clip).permute(3, 0, 1, 2)

    def stream(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames of rising indices, one by one, as :meth:`read` does: index, and uint8 RGB ``(H, W, 3)``."""
        info = self.probe()
        if len(indices) == 0:  # indices may be an array, too
            return
        for end in (indices[0], indices[-1]):
            if not 0 <= end < info.frames:
                raise ClipReadError(f"{self.path}: frame {end} is outside the clip, which has {info.frames} frames")
        with clip_read_errors(self.path):
            for index, frame in self._decode(list(indices)):
                if frame.shape != (info.height, info.width, 3):
                    found = f"{frame.shape[0]}x{frame.shape[1]} pixels (rows x columns)"
                    first = f"the first frame has {info.height}x{info.width}"
                    raise ClipReadError(f"{self.path}: frame {index} has {found}, but {first}")
                yield index, frame

    def close(self) -> None:
        """Release what the reader holds open."""

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _probe(self) -> ClipInfo:
        """Find out what the clip holds; called once."""

    @abstractmethod
    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield index and pixels, uint8 RGB ``(H, W, 3)``, of the frames ``wanted`` (sorted, distinct)."""


class FrameRangeReader(ClipReader):
    """Reads the frames ``first`` to ``last`` of another reader, as if they were a whole clip, and closes it."""

    def __init__(self, reader: ClipReader, first: int, last: int) -> None:
        super().__init__(join_frames(reader.path, first, last))
        self._reader, self._first, self._last = reader, first, last

    def close(self) -> None:
        self._reader.close()

    def times(self) -> np.ndarray:
        self.probe()
        times = self._reader.times()[self._first : self._last + 1]
        return times - times[0]

    def _probe(self) -> ClipInfo:
        whole = self._reader.probe()
        if not self._first <= self._last < whole.frames:
            raise ClipReadError(f"{self.path}: is no range of frames of the clip, which has {whole.frames} frames")
        frames = self._last - self._first + 1
        return replace(whole, frames=frames, duration=frames / whole.fps)

    def _decode(self, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in self._reader._decode([self._first + index for index in wanted]):
            yield index - self._first, frame


def has_suffix(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> bool:
    """Say whether a file name ends in one of ``suffixes``, in upper or lower case."""
    return os.fspath(path).lower().endswith(suffixes)


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of this name is hidden from users, or made by a system for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def frame_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images in a folder in natural order (``frame2`` before ``frame10``), without hidden ones."""
    # a link that leads nowhere is one too: reading names it, where a clip without it would have other frames
    names = (entry.name for entry in os.scandir(folder) if not entry.is_dir())
    images = [name for name in names if has_suffix(name, IMAGE_SUFFIXES) and not name.startswith(".")]
    return [Path(folder, name) for name in sorted(images, key=natural_key)]


def clip_images(clip: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the files of a clip: the images of a folder, a part of one or a list of them, or the one file that it is."""
    if not isinstance(clip, (str, os.PathLike)):
        return [Path(file) for file in clip]
    whole, part = split_frames(os.fspath(clip))
    if not os.path.isdir(whole):
        return [Path(whole)]
    images = frame_images(whole)
    return images[part[0] : part[1] + 1] if part else images


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Give a sort key in which digits count as numbers: ``frame2`` is before ``frame10``, ``01`` before ``1``."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)], name


def join_frames(path: str, first: int, last: int) -> str:
    """Name the frames ``first`` to ``last`` (both included, counted from 0) of a clip: ``video.mp4#frames=150-299``."""
    return f"{path}#frames={first}-{last}"


def split_frames(name: str) -> tuple[str, tuple[int, int] | None]:
    """Take a name made by :func:`join_frames` apart: the path, and first and last frame or, of a whole clip, None."""
    found = _RANGE.search(name)
    if found is None or os.path.exists(name):  # a file may really have such a name
        return name, None
    return name[: found.start()], (int(found[1]), int(found[2]))


def first_frame(clip: object) -> int:
    """Number in its video of the first frame of what may be a part of one."""
    part = split_frames(clip)[1] if isinstance(clip, str) else None
    return part[0] if part else 0
