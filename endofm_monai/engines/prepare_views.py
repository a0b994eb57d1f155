# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.utils import CommonKeys

from endofm_monai.transforms import RandAugmentViewsd

__all__ = ["PrepareViews"]


class PrepareViews(PrepareBatch):
    """Bring the views of a batch to the device, and make them there where the batch holds clips.

    What the batch of :func:`endofm_monai.data.collate_views` holds decides: views that were made in the workers are
    moved; clips with ``view_frames`` are moved as uint8 and augmented on the device, each with its ``seed``, which
    gives the same views.

    Args:
        augment: the transform of a clip into views, whose plan also says the shapes for a batch without clips.
    """

    def __init__(self, augment: RandAugmentViewsd) -> None:
        self.augment = augment

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[list[torch.Tensor], None]:
        """Prepare a batch.

        Args:
            batchdata: batch of :func:`endofm_monai.data.collate_views`.
            device: where the views shall be.
            non_blocking: let copies to the device overlap with computation.
            kwargs: further arguments of ``Tensor.to`` for the views.

        Returns:
            V tensors ``(B, 3, T, S, S)`` (B is 0 when no clip could be read), and None in place of labels.

        Raises:
            KeyError: when a batch of clips has no ``seed``.
        """
        images = batchdata[CommonKeys.IMAGE]
        if "view_frames" in batchdata:
            clips = [clip.to(device=device, non_blocking=non_blocking) for clip in images]
            items = zip(clips, batchdata["view_frames"], batchdata["seed"], strict=True)
            (key,) = self.augment.keys
            made = [self.augment({key: clip, "view_frames": f, "seed": s})[key] for clip, f, s in items]
            images = [torch.stack(views) for views in zip(*made, strict=True)]
        elif not images:
            plan = self.augment.transform.views
            images = [torch.empty(0, 3, view.frames, view.size, view.size) for view in plan]
        return [view.to(device=device, non_blocking=non_blocking, **kwargs) for view in images], None
