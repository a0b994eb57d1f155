# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import MAX_SEED, TransformBackends

from endofm_monai.data import open_clip
from endofm_monai.transforms.clip_transform import RandClipTransformd
from endofm_monai.transforms.view_plan import ViewPlan

__all__ = ["RandLoadViews", "RandLoadViewsd"]


class RandLoadViews(Randomizable, Transform):
    """Draw the frames of all views of a clip and read each of them once.

    Of a longer video the views lie in a window at a random place, as in the published pre-training, which spreads 8
    frames over 32 frames each at 30 frames per second; a shorter one is used whole.

    Args:
        views: the views to take.
        window: duration of the window in seconds.
        reader_options: arguments of :func:`endofm_monai.data.open_clip`.

    Raises:
        ValueError: when ``window`` is not positive.

    Example::

        clip, view_frames = RandLoadViews(ViewPlan())("video.mp4")
        first_view = clip[:, view_frames[0]]  # (3, 8, H, W)
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, views: ViewPlan, window: float = 8 * 32 / 30, **reader_options: Any) -> None:
        if not window > 0:
            raise ValueError(f"RandLoadViews: `window` must be a positive number of seconds, found {window}.")
        self.views = views
        self.window = window
        self.reader_options = reader_options

    def __call__(self, source: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Read the frames that the views need.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens.

        Returns:
            the U distinct frames in order, uint8 ``(3, U, H, W)``, and for each view an int64 tensor ``(T,)`` of
            indices into them.

        Raises:
            ClipReadError: when the clip cannot be read.
        """
        with open_clip(source, **self.reader_options) as reader:
            info = reader.probe()
            self.randomize((info.frames, info.fps))
            frames, index = torch.cat(self.frames).unique(return_inverse=True)
            clip = reader.read(frames.tolist())
        return clip, list(index.split([len(view) for view in self.frames]))

    def randomize(self, data: tuple[int, float]) -> None:
        """Draw the frames of each view of a clip with ``data = (frames, frames per second)``."""
        clip_frames, fps = data
        window_frames = min(clip_frames, max(1, round(self.window * fps)))
        start = self.R.randint(clip_frames - window_frames + 1)
        self.frames = [start + frames for frames in self.views.draw_frames(window_frames, self.R)]


class RandLoadViewsd(RandClipTransformd):
    """Dictionary version of :class:`RandLoadViews`.

    The item gets ``view_frames`` (for each view its indices into the frames of the clip) and, unless it has one, the
    ``seed`` that :class:`RandAugmentViewsd` draws from, wherever that runs.

    Args:
        keys: key of the clip, only one.
        args: arguments of :class:`RandLoadViews`.
        allow_missing_keys: do not fail when the key is missing.
        kwargs: keyword arguments of :class:`RandLoadViews`.

    Raises:
        ValueError: when there are several keys.
    """

    array_transform = RandLoadViews

    def __init__(self, keys: KeysCollection, *args: Any, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        super().__init__(keys, *args, allow_missing_keys=allow_missing_keys, **kwargs)
        if len(self.keys) != 1:
            raise ValueError(f"RandLoadViewsd: `keys` must be one key, as an item has one `view_frames`, found {keys}.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the clip at the key; all else stays."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key], d["view_frames"] = self.transform(d[key])
            d.setdefault("seed", int(self.transform.R.randint(MAX_SEED, dtype=np.uint32)))
        return d
