# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import decollate_batch, list_data_collate
from monai.utils import CommonKeys

__all__ = ["collate_clips", "collate_views", "split_clips"]


def collate_views(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of items that hold views, or clips of which the views are still to be made.

    Args:
        items: dictionaries with ``image``: a list of V views ``(3, T, S, S)``, or beside ``view_frames`` a clip
            ``(3, U, H, W)`` of any size; or with ``broken``: why the clip could not be read.

    Returns:
        a dictionary of those that could be read: ``image`` is a list of V tensors ``(B, 3, T, S, S)``, or of B clips;
        ``label`` a tensor, when all have one; any other key that all have a list of B values. ``broken`` is the list
        of messages. With no item left ``image`` is an empty list.
    """
    read = [item for item in items if "broken" not in item]
    batch: dict[str, Any] = {CommonKeys.IMAGE: []}
    for key in set.intersection(*(set(item) for item in read)) if read else ():
        values = [item[key] for item in read]
        if key == CommonKeys.LABEL:
            batch[key] = torch.as_tensor(values)
        elif key == CommonKeys.IMAGE and "view_frames" not in read[0]:
            batch[key] = [torch.stack(views) for views in zip(*values, strict=True)]
        else:
            batch[key] = values
    batch["broken"] = [item["broken"] for item in items if "broken" in item]
    return batch


def collate_clips(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of whole clips of equal shape, as MONAI's ``list_data_collate``, without those that are broken.

    Args:
        items: dictionaries with ``image`` ``(3, T, H, W)``, or with ``broken``: why the clip could not be read.

    Returns:
        the batch of those that could be read, with the keys that all of them have; lists and strings stay a list of B.
        ``broken`` is the list of messages. With no item left ``image`` is an empty list.
    """
    read = [item for item in items if "broken" not in item]
    keys = set.intersection(*(set(item) for item in read)) if read else set()
    batch: dict[str, Any] = {CommonKeys.IMAGE: []}
    for key in keys:
        values = [item[key] for item in read]
        is_ragged = isinstance(values[0], (list, str))  # frame paths, boxes: as many as they like
        batch[key] = values if is_ragged else list_data_collate(values)
    return {**batch, "broken": [item["broken"] for item in items if "broken" in item]}


def split_clips(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Undo ``collate_clips``: the items of a batch without its ``broken``.

    MONAI's ``decollate_batch`` looks into lists as well, and drops items when one of them holds an empty one.
    """
    lists = {key: value for key, value in batch.items() if isinstance(value, list)}
    items = decollate_batch({key: value for key, value in batch.items() if key not in lists})
    lists.pop("broken", None)
    return [{**item, **{key: values[index] for key, values in lists.items()}} for index, item in enumerate(items)]
