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
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from PIL import Image

from endofm_monai.data.clip_files import frame_images
from endofm_monai.data.clip_reader import ClipReadError

__all__ = ["LoadMasks", "LoadMasksd"]


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
