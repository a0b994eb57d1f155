# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any, ClassVar

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import TransformBackends

from endofm_monai.data import clip_metadata, linspace_indices, open_clip
from endofm_monai.transforms.clip_transform import ClipTransformd

__all__ = ["LoadClip", "LoadClipd"]


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
