# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import torch
from monai.transforms import Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends

from endofm_monai.data import ClipReadError, open_clip

__all__ = ["RandLoadKeyFramed"]


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
