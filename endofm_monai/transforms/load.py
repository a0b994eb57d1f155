# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import CommonKeys

from endofm_monai.data.labels import check_boxes
from endofm_monai.data.masks import check_mask, mask_files, read_mask
from endofm_monai.data.readers import ClipReadError, clip_metadata, open_clip
from endofm_monai.data.sampling import FrameSampler

__all__ = ["LoadBoxesd", "LoadClipd", "LoadMasksd"]


class LoadClipd(Randomizable, MapTransform):
    """Read the clips at ``keys``, all frames or those that a ``sampler`` chooses.

    A key holds what :func:`endofm_monai.data.open_clip` opens with the ``reader_options``; it gets the frames, as uint8
    RGB ``(3, T, H, W)`` with the metadata of :func:`endofm_monai.data.clip_metadata`. All keys have the same draws.
    """

    def __init__(
        self,
        keys: KeysCollection,
        sampler: FrameSampler | None = None,
        allow_missing_keys: bool = False,
        **reader_options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.sampler, self.reader_options = sampler, reader_options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        state = self.R.get_state()
        for key in self.key_iterator(d):
            self.R.set_state(state)
            with open_clip(d[key], **self.reader_options) as reader:
                info = reader.probe()
                indices = self.sampler(info, d, self.R) if self.sampler else torch.arange(info.frames)
                d[key] = MetaTensor(reader.read(indices), meta=clip_metadata(reader, indices))
        return d


class LoadMasksd(MapTransform):
    """Read the masks of those frames of the loaded ``image`` that were read, as uint8 ``(1, T, H, W)``, 0 or 1.

    Their key holds the mask files of all frames in order, a folder with them, or one file for a clip of one frame, see
    :func:`endofm_monai.data.mask_files`. They become the item's ``label``, also where a class stood there.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        clip = d[CommonKeys.IMAGE]
        name = clip.meta["filename_or_obj"]
        for key in self.key_iterator(d):
            masks = np.empty((1, *clip.shape[1:]), np.uint8)
            for place, (index, path) in enumerate(_of_frames(mask_files(d[key], name), clip, "masks")):
                if path is None:
                    raise ClipReadError(f"{name}: frame {index} has no mask")
                mask = self.read(path)
                check_mask(mask, clip.shape[2], clip.shape[3], path)
                masks[0, place] = mask
            d[CommonKeys.LABEL] = torch.from_numpy(masks)
        return d

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """Read one mask, which may have no values between."""
        return read_mask(path, clean=True)


class LoadBoxesd(MapTransform):
    """Take the boxes of those frames of a clip that were read, see :func:`endofm_monai.data.load_box_datalist`.

    They become a list of T float32 tensors ``(G, 4)``, their labels at ``box_label`` one of T int64 tensors ``(G,)``.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        clip, labels = d[CommonKeys.IMAGE], d["box_label"]
        for key in self.key_iterator(d):
            boxes = _of_frames(d[key], clip, "lists of boxes")
            check_boxes(d[key], clip.shape[2], clip.shape[3], clip.meta["filename_or_obj"])
            d[key] = [torch.tensor(box, dtype=torch.float32).reshape(-1, 4) for _, box in boxes]
            d["box_label"] = [torch.tensor(labels[index], dtype=torch.long) for index, _ in boxes]
        return d


def _of_frames(values: Sequence[Any], clip: MetaTensor, what: str) -> list[tuple[int, Any]]:
    """Index and value of each frame that was read, of values for all frames of the video."""
    if len(values) != clip.meta["frames"]:
        name, frames = clip.meta["filename_or_obj"], clip.meta["frames"]
        raise ClipReadError(f"{name}: has {frames} frames, but {len(values)} {what} are listed; every frame needs one")
    return [(index, values[index]) for index in clip.meta["frame_indices"].tolist()]
