# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends
from PIL import Image

from endofm_monai.data import (
    ClipInfo,
    ClipReader,
    ClipReadError,
    WindowPlan,
    clip_metadata,
    linspace_indices,
    open_clip,
)
from endofm_monai.data.readers.paths import frame_images
from endofm_monai.transforms.base import ClipTransformd, RandClipTransformd

__all__ = [
    "LoadClip",
    "LoadClipd",
    "LoadMasks",
    "LoadMasksd",
    "LoadWindow",
    "LoadWindowd",
    "RandLoadClip",
    "RandLoadClipd",
    "RandLoadKeyFramed",
]


class LoadClip(Transform):
    """Read a clip, or some of its frames, always the same ones.

    Args:
        num_frames: number of frames T to read; all by default.
        sampling: which frames: ``"uniform"`` spreads them evenly over the clip, from the first to the last, as
            :func:`endofm_monai.data.linspace_indices` does; ``"center"`` takes consecutive ones from the middle. Both
            repeat frames of a clip that has fewer.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.

    Raises:
        ValueError: when ``num_frames`` is not positive or ``sampling`` is neither of the two.

    Example::

        clip = LoadClip(num_frames=8)("colonoscopy.mp4")  # (3, 8, H, W)
        clip.meta["frame_indices"], clip.meta["fps"]
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, num_frames: int | None = None, sampling: str = "uniform", **reader_options: Any) -> None:
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"LoadClip: `num_frames` must be positive or None (all frames), found {num_frames}.")
        if sampling not in ("uniform", "center"):
            raise ValueError(f'LoadClip: `sampling` must be "uniform" or "center", found "{sampling}".')
        self.num_frames = num_frames
        self.sampling = sampling
        self.reader_options = reader_options

    def __call__(self, source: Any) -> MetaTensor:
        """Read the frames.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens.

        Returns:
            uint8 RGB ``(3, T, H, W)`` with the metadata of :func:`endofm_monai.data.clip_metadata`.

        Raises:
            ClipReadError: when the clip cannot be read.
        """
        with open_clip(source, **self.reader_options) as reader:
            indices = self.frame_indices(reader.probe().frames)
            return MetaTensor(reader.read(indices), meta=clip_metadata(reader, indices))

    def frame_indices(self, frames: int) -> torch.Tensor:
        """Give the int64 indices ``(T,)`` that are read of a clip with ``frames`` frames."""
        if self.num_frames is None:
            return torch.arange(frames)
        if self.sampling == "uniform":
            return linspace_indices(0, frames - 1, self.num_frames, frames)
        first = max(0, (frames - self.num_frames) // 2)
        return torch.arange(first, first + self.num_frames).clamp(max=frames - 1)


class LoadClipd(ClipTransformd):
    """Dictionary version of :class:`LoadClip`: the item's paths become clips."""

    array_transform = LoadClip


class RandLoadClip(Randomizable, Transform):
    """Read the frames of a window at a random place of a video, as published for training.

    Args:
        num_frames: see :class:`WindowPlan`, likewise the next two.
        sampling_rate: frames at 30 per second that one frame stands for.
        reference_short_videos: repeat the last frame of a short video.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.

    Example::

        clip = RandLoadClip(num_frames=8, sampling_rate=32).set_random_state(seed=0)("video.mp4")  # (3, 8, H, W)
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        num_frames: int = 8,
        sampling_rate: float = 32,
        reference_short_videos: bool = False,
        **reader_options: Any,
    ) -> None:
        self.plan = WindowPlan(num_frames, sampling_rate, reference_short_videos)
        self.reader_options = reader_options

    def __call__(self, source: Any) -> MetaTensor:
        """Read the frames.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens.

        Returns:
            uint8 RGB ``(3, T, H, W)`` with the metadata of :func:`endofm_monai.data.clip_metadata`.

        Raises:
            ClipReadError: when the video cannot be read.
        """
        with open_clip(source, **self.reader_options) as reader:
            self.randomize(reader.probe())
            return _read(reader, self.plan.indices(reader.probe(), self.start))

    def randomize(self, data: ClipInfo) -> None:
        """Draw where the window begins in a video."""
        self.start = self.R.randint(data.frames - self.plan.length(data) + 1)


class RandLoadClipd(RandClipTransformd):
    """Dictionary version of :class:`RandLoadClip`."""

    array_transform = RandLoadClip


class LoadWindow(Transform):
    """Read the frames of one of several windows that are evenly spread over a video, always the same ones.

    The video of the last call stays open, so that the windows of a long one can be read one after the other.

    Args:
        num_frames: see :class:`WindowPlan`, likewise the next two.
        sampling_rate: frames at 30 per second that one frame stands for.
        reference_short_videos: repeat the last frame of a short video.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        num_frames: int = 8,
        sampling_rate: float = 32,
        reference_short_videos: bool = False,
        **reader_options: Any,
    ) -> None:
        self.plan = WindowPlan(num_frames, sampling_rate, reference_short_videos)
        self.reader_options = reader_options
        self._source: Any = None
        self._reader: ClipReader | None = None

    def __call__(self, source: Any, window: int = 0, num_windows: int = 1) -> MetaTensor:
        """Read the frames of a window.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens.
            window: number of the window, from 0.
            num_windows: number of windows; the first begins with the video, the last ends with it.

        Returns:
            uint8 RGB ``(3, T, H, W)`` with the metadata of :func:`endofm_monai.data.clip_metadata`.

        Raises:
            ClipReadError: when the video cannot be read.
        """
        reader = self._open(source)
        try:
            info = reader.probe()
            return _read(reader, self.plan.indices(info, self.plan.start(info, window, num_windows)))
        finally:
            if window == num_windows - 1:
                self.close()

    def close(self) -> None:
        """Close the video that is still open."""
        if self._reader is not None:
            self._reader.close()
        self._source = self._reader = None

    def _open(self, source: Any) -> ClipReader:
        if self._reader is None or source != self._source:
            self.close()
            self._reader = open_clip(source, **self.reader_options)
            self._source = source
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_reader": None}  # an open video cannot go to another process


class LoadWindowd(ClipTransformd):
    """Dictionary version of :class:`LoadWindow`; the item tells ``window`` and ``num_windows``, by default 0 and 1."""

    array_transform = LoadWindow

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the clips at ``keys``; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d.get("window", 0), d.get("num_windows", 1))
        return d


def _read(reader: ClipReader, indices: torch.Tensor) -> MetaTensor:
    return MetaTensor(reader.read(indices), meta=clip_metadata(reader, indices))


class RandLoadKeyFramed(Randomizable, Transform):
    """Read a key frame of a video and support frames about it, with their boxes.

    Half of the supports are drawn from the ``window`` frames before the key frame, half from those after it (of an odd
    number the larger half), each uniformly; near an end of the video they are its first or last frame. With two
    supports it is the published rule.

    Args:
        num_supports: number of support frames.
        window: largest distance to the key frame, in frames.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, num_supports: int = 2, window: int = 9, **reader_options: Any) -> None:
        self.num_supports = num_supports
        self.window = window
        self.reader_options = reader_options

    def randomize(self, data: Any = None) -> None:
        """Draw the distances of the supports from the key frame."""
        sign = [-1 if support % 2 == 0 else 1 for support in range(self.num_supports)]
        self.offsets = self.R.randint(1, self.window + 1, self.num_supports) * sign

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load.

        Args:
            data: an item of :func:`endofm_monai.data.key_frames`.

        Returns:
            the item, with ``image`` uint8 ``(3, T, H, W)``, the key frame first; ``box``, a list of T float32 tensors
            ``(G, 4)``; ``box_label``, a list of T int64 tensors ``(G,)``; and ``frames``, their indices.

        Raises:
            ClipReadError: when a frame cannot be read, or the video has another number of frames than annotations.
        """
        self.randomize()
        d = dict(data)
        with open_clip(d[CommonKeys.IMAGE], **self.reader_options) as reader:
            frames = reader.probe().frames
            if frames != len(d["box"]):
                raise ClipReadError(f"{reader.path}: has {frames} frames, but boxes are given for {len(d['box'])}")
            indices = [d["frame_index"], *(int(i) for i in (d["frame_index"] + self.offsets).clip(0, frames - 1))]
            d[CommonKeys.IMAGE] = reader.read(indices)
        d["frames"] = indices
        d["box"] = [torch.tensor(d["box"][index], dtype=torch.float32).reshape(-1, 4) for index in indices]
        d["box_label"] = [torch.tensor(d["box_label"][index], dtype=torch.long) for index in indices]
        return d


class LoadMasks(Transform):
    """Read the masks of frames of a clip from image files, one a frame of the clip, and check them.

    A mask holds 0 for background, and 255 or 1 for foreground; with no foreground it is all 0.

    Args:
        reference_values: take 255 for foreground and any other value for background, as the published code does.

    Example::

        clip = LoadClip(num_frames=8)("frames/")
        masks = LoadMasks()("masks/", clip)  # (1, 8, H, W), uint8, 0 or 1
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.NUMPY]

    def __init__(self, reference_values: bool = False) -> None:
        self.reference_values = reference_values

    def __call__(self, masks: str | os.PathLike | Sequence[str | os.PathLike], clip: MetaTensor) -> torch.Tensor:
        """Read the masks of those frames that ``clip`` holds.

        Args:
            masks: mask files of all frames in the order of the clip, or a folder with them in natural order; one file
                for a clip of one frame.
            clip: ``(3, T, H, W)``, with the ``frames`` and ``frame_indices`` of
                :func:`endofm_monai.data.clip_metadata`.

        Returns:
            uint8 ``(1, T, H, W)``, 0 or 1.

        Raises:
            ClipReadError: when there are more or fewer masks than frames, or a mask is missing, is unreadable, has
                another size than the frame, or holds other values. The message starts with the mask's or clip's path.
        """
        if isinstance(masks, (str, os.PathLike)):
            masks = frame_images(masks) if os.path.isdir(masks) else [masks]
        if len(masks) != clip.meta["frames"]:
            raise ClipReadError(
                f"{clip.meta['filename_or_obj']}: has {clip.meta['frames']} frames, but {len(masks)} masks are listed; "
                "every frame needs one"
            )
        read = np.empty((1, *clip.shape[1:]), np.uint8)
        for place, index in enumerate(clip.meta["frame_indices"].tolist()):
            read[0, place] = self._read(masks[index], clip, index)
        return torch.from_numpy(read)

    def _read(self, path: Any, clip: MetaTensor, index: int) -> np.ndarray:
        if path is None:
            raise ClipReadError(f"{clip.meta['filename_or_obj']}: frame {index} has no mask")
        try:
            with Image.open(path) as image:
                mask = np.asarray(image).astype(np.int64)
        except (OSError, SyntaxError, ValueError) as error:
            raise ClipReadError(f"{path}: is not a readable mask ({error})") from error
        if mask.ndim == 3 and (mask[..., :3] == mask[..., :1]).all():  # gray, stored as RGB
            mask = mask[..., 0]
        if mask.shape != clip.shape[2:]:
            raise ClipReadError(
                f"{path}: has {'x'.join(map(str, mask.shape))} values, its frame {clip.shape[2]}x{clip.shape[3]} pixels"
            )
        if self.reference_values:
            return mask == 255
        values = np.unique(mask)
        if not (np.isin(values, (0, 255)).all() or np.isin(values, (0, 1)).all()):
            found = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
            raise ClipReadError(f"{path}: a mask must hold 0 and 255, or 0 and 1, but holds {found}")
        return mask > 0


class LoadMasksd(MapTransform):
    """Dictionary version of :class:`LoadMasks`.

    Args:
        keys: key of the mask files.
        image_key: key of the clip, which is already loaded.
        output_key: key for the masks. The default replaces the class label that the datalist may have for other tasks.
        allow_missing_keys: leave items without masks as they are.
        reference_values: see :class:`LoadMasks`.
    """

    backend = LoadMasks.backend

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        output_key: str = "label",
        allow_missing_keys: bool = False,
        reference_values: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.output_key = output_key
        self.load = LoadMasks(reference_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the masks; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.output_key] = self.load(d[key], d[self.image_key])
        return d
