# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from endofm_monai.data.frame_indices import linspace_indices

__all__ = ["View", "ViewPlan"]

GLOBAL_SHIFT = 5  # frames by which the last global view starts and ends later than the first


@dataclass(frozen=True)
class View:
    """One view of a clip.

    Args:
        name: ``g1``, ``g2``, … for global views, ``l1``, ``l2``, … for local ones.
        frames: number of frames T.
        size: height and width in pixels.
        scale: smallest and largest share of the frame's area that its crop covers.
        is_global: whether the teacher sees it.
    """

    name: str
    frames: int
    size: int
    scale: tuple[float, float]
    is_global: bool


@dataclass(frozen=True)
class ViewPlan:
    """How many views are taken of a clip, how long and how large; iterating gives each :class:`View`, global first.

    The defaults are the ten views of the published pre-training. Sequences may be lists, as in a JSON config.

    Args:
        global_frames: number of frames of each global view.
        local_frames: number of frames of each local view.
        global_size: height and width of the global views in pixels.
        local_size: height and width of the local views in pixels.
        global_scale: smallest and largest share of the frame's area in a crop of a global view.
        local_scale: the same of a local view.
        ratio: smallest and largest width-to-height ratio of a crop.
        local_span: share of the clip's duration that a local view covers.

    Raises:
        ValueError: when a value is outside its range; the message names it.

    Example::

        plan = ViewPlan(local_frames=[2, 4])
        [(view.name, view.frames, view.size) for view in plan]
        # [('g1', 8, 224), ('g2', 16, 224), ('l1', 2, 96), ('l2', 4, 96)]
    """

    global_frames: tuple[int, ...] = (8, 16)
    local_frames: tuple[int, ...] = (2, 2, 4, 4, 8, 8, 16, 16)
    global_size: int = 224
    local_size: int = 96
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    local_span: float = 1 / 8

    def __post_init__(self) -> None:
        for name in ("global_frames", "local_frames", "global_scale", "local_scale", "ratio"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.global_frames:
            raise ValueError("ViewPlan: `global_frames` must name at least one view, found none.")
        for name in ("global_frames", "local_frames", "global_size", "local_size"):
            value = getattr(self, name)
            if not all(isinstance(n, int) and n > 0 for n in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"ViewPlan: `{name}` must hold positive integers, found {value}.")
        for name, largest in (("global_scale", 1.0), ("local_scale", 1.0), ("ratio", float("inf"))):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1] <= largest:
                raise ValueError(
                    f"ViewPlan: `{name}` must be (low, high), 0 < low <= high <= {largest}, found {value}."
                )
        if not 0 < self.local_span <= 1:
            raise ValueError(f"ViewPlan: `local_span` must be above 0 and at most 1, found {self.local_span}.")

    def __iter__(self) -> Iterator[View]:
        for number, frames in enumerate(self.global_frames, start=1):
            yield View(f"g{number}", frames, self.global_size, self.global_scale, is_global=True)
        for number, frames in enumerate(self.local_frames, start=1):
            yield View(f"l{number}", frames, self.local_size, self.local_scale, is_global=False)

    def __len__(self) -> int:
        return len(self.global_frames) + len(self.local_frames)

    @property
    def longest(self) -> int:
        """Number of frames of the longest view."""
        return max(self.global_frames + self.local_frames)

    def draw_frames(self, clip_frames: int, random_state: np.random.RandomState) -> list[torch.Tensor]:
        """Draw the frames of all views of a clip.

        A global view spans the clip but for five frames: the first view leaves them out at the end, the last one at
        the start, and those between lie evenly between (a single one spans the whole clip; below ten frames half of
        the clip is left out). A local view spans ``local_span`` of the clip from a random frame. For the default plan
        this is the published sampling. A span with fewer frames than its view repeats frames, so one frame is enough.

        Args:
            clip_frames: number of frames M of the clip, at least 1.
            random_state: where the starts of the local views are drawn from.

        Returns:
            for each view, global ones first, an int64 tensor ``(T,)`` of ascending indices in ``[0, M - 1]``.
        """
        shift = min(GLOBAL_SHIFT, clip_frames // 2) if len(self.global_frames) > 1 else 0
        starts = np.linspace(0, shift, len(self.global_frames))
        width = int(clip_frames * self.local_span)
        indices = []
        for number, frames in enumerate(self.global_frames):
            start = float(starts[number])
            indices.append(linspace_indices(start, clip_frames - shift + start, frames, clip_frames))
        for frames in self.local_frames:
            start = random_state.randint(max(clip_frames - width, 1))
            indices.append(linspace_indices(start, start + width, frames, clip_frames))
        return indices
