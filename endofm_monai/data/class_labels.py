# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from endofm_monai.data.clip_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix
from endofm_monai.data.datalist import load_datalist
from endofm_monai.data.naming import name_videos

__all__ = ["class_weights", "load_labeled_clips"]


def load_labeled_clips(
    dataset_dir: str | os.PathLike,
    class_names: Sequence[str],
    datalist: str | os.PathLike | None = None,
    section: str = "training",
    multi_label: bool = False,
) -> list[dict[str, Any]]:
    """List videos or images with their classes, and check the labels before any training.

    Without a datalist the folder tells: ``<dataset_dir>/<section>/<class name>/`` holds the videos and images of a
    class. An item of frame images with a label a frame becomes an item a frame.

    Args:
        dataset_dir: folder with the data.
        class_names: names of the classes, by class index.
        datalist: JSON file, see :func:`endofm_monai.data.load_datalist`; ``label`` is a class index or name, or with
            ``multi_label`` a list of 0 and 1, one a class.
        section: the list to take, ``"training"``, ``"validation"`` or ``"test"``.
        multi_label: whether a clip may have several classes or none.

    Returns:
        items with ``image`` (absolute paths), ``label`` (class index, or float32 ``(num_classes,)``), ``video`` (what
        an answer is given for: the path in ``dataset_dir``, unless the datalist says otherwise) and ``group`` (videos
        that are not independent of each other, as those of one patient; by default each is on its own).

    Raises:
        FileNotFoundError: when a folder or file does not exist.
        ValueError: when a label is missing or no class, or the training section lacks a class; it names the item.
    """
    if datalist is None:
        items = _from_folders(Path(dataset_dir), section, class_names)
    else:
        items = load_datalist(dataset_dir, datalist, section, label_key="", required=("label",))
    clips = [frame for item in items for frame in ([item] if multi_label else _frames(item))]
    labeled = []
    for clip in name_videos(clips, dataset_dir):
        where = f"{datalist or dataset_dir}: {section}: {clip['video']}"
        label = _label(clip["label"], class_names, multi_label, where)
        labeled.append({"group": clip["video"], **clip, "label": label})
    if section == "training":
        present = _count(labeled, len(class_names))
        if missing := [name for name, count in zip(class_names, present, strict=True) if count == 0]:
            raise ValueError(
                f"{datalist or dataset_dir}: no item of `{section}` is of the class {', '.join(missing)}, which so "
                "cannot be learned; add clips, or leave it out of `class_names`."
            )
    return labeled


def class_weights(
    weights: Sequence[float] | str | None, items: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> list[float] | None:
    """Weights of the classes in a loss.

    Args:
        weights: a list with one a class; ``"balanced"`` for the number of all items divided by the number of classes
            and that of the items of a class, which makes up for the frequencies; None for no weights.
        items: training items of :func:`load_labeled_clips`.
        class_names: names of the classes.

    Raises:
        ValueError: when there is not one weight a class.
    """
    if weights == "balanced":
        counts = _count(items, len(class_names))
        return [len(items) / (len(class_names) * count) for count in counts]
    if isinstance(weights, str) or (weights is not None and len(weights) != len(class_names)):
        raise ValueError(f'`class_weights` must be "balanced" or {len(class_names)} numbers, found {weights!r}.')
    return None if weights is None else list(weights)


def _from_folders(dataset_dir: Path, section: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    folder = dataset_dir / section
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: is no folder; without `datalist` it must hold one folder a class.")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if strange := sorted(set(found) - set(class_names)):
        raise ValueError(f"{folder / strange[0]}: is none of `class_names` {list(class_names)}.")
    items = []
    for index, name in enumerate(class_names):
        for path in sorted((folder / name).rglob("*")):
            if has_suffix(path, IMAGE_SUFFIXES + VIDEO_SUFFIXES) and not path.name.startswith("."):
                items.append({"image": os.path.realpath(path), "label": index})
    if not items:
        raise ValueError(f"{folder}: its folders {found} hold no video and no image.")
    return items


def _frames(item: dict[str, Any]) -> list[dict[str, Any]]:
    """One item a frame where each frame has a label of its own, else the item."""
    if not isinstance(item["label"], list) or not isinstance(item["image"], list):
        return [item]
    if len(item["label"]) != len(item["image"]):
        raise ValueError(
            f"{item['image'][0]} and following: {len(item['image'])} frames have {len(item['label'])} labels."
        )
    frames = zip(item["image"], item["label"], strict=True)
    return [{"image": frame, "label": label, "group": item["image"][0]} for frame, label in frames]


def _label(label: Any, class_names: Sequence[str], multi_label: bool, where: str) -> Any:
    if multi_label:
        if not isinstance(label, list) or len(label) != len(class_names) or not set(label) <= {0, 1}:
            raise ValueError(f"{where}: `label` must be a list of {len(class_names)} times 0 or 1, found {label!r}.")
        return torch.tensor(label, dtype=torch.float32)
    if label in class_names:
        return list(class_names).index(label)
    if not isinstance(label, int) or not 0 <= label < len(class_names):
        raise ValueError(
            f"{where}: `label` must be from 0 to {len(class_names) - 1} or one of {list(class_names)}, found {label!r}."
        )
    return int(label)


def _count(items: Sequence[dict[str, Any]], num_classes: int) -> list[float]:
    """Number of items of each class."""
    one_hot = torch.eye(num_classes)
    labels = [item["label"] for item in items]
    rows = [label if isinstance(label, torch.Tensor) else one_hot[label] for label in labels]
    return torch.stack(rows).sum(dim=0).tolist()
