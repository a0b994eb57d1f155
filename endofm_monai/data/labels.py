# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endofm_monai.data.datalist import load_datalist, name_clips
from endofm_monai.data.masks import check_mask, mask_files, read_mask
from endofm_monai.data.readers import IMAGE_SUFFIXES, ClipInfo, ClipReadError, clip_images, list_files, open_clip
from endofm_monai.data.readers.base import CLIP_SUFFIXES, is_hidden
from endofm_monai.utils import PathLike, as_class_names, read_json

__all__ = [
    "check_box", "check_boxes", "class_weights", "key_frames", "load_box_datalist", "load_labeled_clips",
    "load_mask_datalist",
]  # fmt: skip

logger = logging.getLogger(__name__)


def load_mask_datalist(
    dataset_dir: PathLike, datalist: PathLike, section: str = "training", num_classes: int = 2
) -> list[dict[str, Any]]:
    """List videos with masks as :func:`load_datalist`, and check before any training that each frame has one.

    An item has ``mask``: a file, a list of one a frame, or their folder. Of a video file, whose frames are counted when
    it is read, only the kind of ``mask`` is checked. Masks are read until one shows something.
    """
    if num_classes > 2:
        raise ValueError(f"`num_classes` is {num_classes}, but masks have 2 classes, background and foreground.")
    items = load_datalist(dataset_dir, datalist, section, label_key="mask", required=("mask",))
    for index, item in enumerate(items):
        where, masks = f"{datalist}: {section}[{index}] ({item['name']})", item["mask"]
        for mask in masks if isinstance(masks, list) else [masks]:
            if not isinstance(mask, str):
                raise ValueError(f"{where}: `mask` must be a file, one for each frame or their folder, found {mask!r}.")
        frames, files = clip_images(item["image"]), mask_files(masks, item["image"])
        if len(frames) != len(files) and len(frames) > 1:  # a single file may hold several frames
            raise ValueError(f"{where}: has {len(frames)} frames, but {len(files)} masks; every frame needs one.")
    if not _find_one(items, _shows_mask):
        message = f"{datalist}: {section}: no mask shows anything but background."
        if section == "training":
            raise ValueError(message)
        logger.warning(message)
    return items


def _find_one(items: Sequence[dict[str, Any]], shows: Callable[[dict[str, Any], ClipInfo], bool]) -> bool:
    """Say whether any item shows something; where none does and some cannot be used, raise the error of the first."""
    first: ClipReadError | None = None
    for item in items:
        try:
            with open_clip(item["image"]) as reader:
                info = reader.probe()
            if shows(item, info):
                return True
        except ClipReadError as error:
            first = first or error
    if first:
        raise first
    return False


def _shows_mask(item: dict[str, Any], info: ClipInfo) -> bool:
    for path in mask_files(item["mask"], item["image"]):
        mask = read_mask(path, clean=True)
        check_mask(mask, info.height, info.width, path)
        if mask.any():
            if mask[[0, 0, -1, -1], [0, -1, 0, -1]].all():
                logger.warning(f"{path}: its corners are foreground, which is white or 1; is it inverted?")
            return True
    return False


def _shows_box(item: dict[str, Any], info: ClipInfo) -> bool:
    check_boxes(item["box"], info.height, info.width, item["name"])
    return any(item["box"])


def load_box_datalist(
    dataset_dir: PathLike,
    datalist: PathLike,
    section: str = "training",
    num_classes: int = 1,
    class_names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """List videos with boxes as :func:`load_datalist`, and check all boxes before any training.

    An item has ``image``, and ``box`` and ``box_label`` with a list a frame: of boxes ``[x1, y1, x2, y2]`` in pixels of
    the frame, x to the right and y downwards, and of their classes from 1 to ``num_classes``; both empty where nothing
    is to be seen. Sides may lie beyond the frame: they are clipped when it is loaded. Where the list names the classes,
    as ``"labels": {"1": "polyp"}``, ``class_names`` must have the same order.
    """
    check_order(datalist, class_names)
    items = load_datalist(dataset_dir, datalist, section, required=("box", "box_label"))
    for index, item in enumerate(items):
        where, box, box_label = f"{datalist}: {section}[{index}] ({item['name']})", item["box"], item["box_label"]
        for values in (box, box_label):
            if not isinstance(values, list) or not all(isinstance(value, list) for value in values):
                raise ValueError(f"{where}: `box` and `box_label` need a list for each frame, found {values!r:.80}.")
        frames = len(box)
        if len(box_label) != frames or (not isinstance(item["image"], str) and len(item["image"]) != frames):
            raise ValueError(f"{where}: needs a list of boxes and of labels for each frame, found {frames} and others.")
        for frame, (boxes, labels) in enumerate(zip(box, box_label, strict=True)):
            place = f"{where}, frame {frame}"
            if len(boxes) != len(labels):
                raise ValueError(f"{place}: has {len(boxes)} boxes, but {len(labels)} labels.")
            for each, label in zip(boxes, labels, strict=True):
                check_box(each, place)
                if label not in range(1, num_classes + 1):
                    raise ValueError(f"{place}: the label {label!r} is no class; expected 1 to {num_classes}.")
    if section == "training":
        present = {label for item in items for labels in item["box_label"] for label in labels}
        _refuse_missing([label for label in range(1, num_classes + 1) if label not in present], "box", datalist)
    _find_one(items, _shows_box)
    return items


def check_order(datalist: PathLike, class_names: Sequence[str]) -> None:
    """Refuse names of classes in another order than that of the numbers that a datalist gives them, or with gaps."""
    content: Any = read_json(datalist, object)
    labels = content.get("labels") if isinstance(content, dict) else None
    numbered = {int(key): name for key, name in labels.items() if key.isdecimal()} if isinstance(labels, dict) else {}
    given = list(class_names)
    # of boxes numbers count from 1, so that they need not be those of `class_names`, but as far apart
    if len({number - given.index(name) for number, name in numbered.items() if name in given}) > 1:
        there, here = ", ".join(map(str, dict(sorted(numbered.items())).values())), ", ".join(given)
        raise ValueError(f"{datalist}: numbers its classes in the order {there}, but `class_names` is {here}.")


def _refuse_missing(classes: Sequence[Any], what: str, where: Any) -> None:
    if classes:
        problem = f"no {what} of `training` is of the class {', '.join(map(str, classes))}, which so cannot be learned"
        raise ValueError(f"{where}: {problem}; add clips, or leave it out of `class_names`.")


def check_box(box: Any, where: str) -> None:
    """Refuse what is no box ``[x1, y1, x2, y2]`` in pixels."""
    is_box = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
    if not is_box or not all(abs(side) < 1e9 for side in box):  # neither NaN nor beyond any frame
        raise ClipReadError(f"{where}: a box needs four finite numbers [x1, y1, x2, y2], found {box}.")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ClipReadError(f"{where}: the box {box} is inverted or has no area; expected x1 < x2 and y1 < y2.")
    if all(0 <= side <= 1 for side in box) and box != [0, 0, 1, 1]:  # which is a pixel, cut off by the frame
        raise ClipReadError(f"{where}: the box {box} is of shares of the frame; expected pixels.")


def check_boxes(box: Sequence[Sequence[Sequence[float]]], height: int, width: int, name: str) -> None:
    """Refuse the boxes of a video's frames of which less than half lies in the frame: they are of another size."""
    boxes = np.array([each for of_frame in box for each in of_frame], np.float64).reshape(-1, 4)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum()
    left_top, right_bottom = np.split(np.minimum(boxes, [width, height] * 2), 2, axis=1)
    # what lies beyond the left or upper side counts as within: only a polyp that leaves the frame does so
    inside = ((right_bottom - left_top) * (right_bottom > 0)).prod(axis=1).sum()
    if 2 * inside < area:
        frames = f"frames of {width}x{height} pixels; they are of frames of another size"
        first = next(each for of_frame in box for each in of_frame)
        raise ClipReadError(f"{name}: less than half of its boxes, as {list(first)}, is in its {frames}")


def key_frames(items: Sequence[dict[str, Any]], interval: int = 1) -> list[dict[str, Any]]:
    """Give an item with ``frame_index`` for every ``interval``-th frame of videos of :func:`load_box_datalist`."""
    return [{**item, "frame_index": index} for item in items for index in range(0, len(item["box"]), interval)]


def load_labeled_clips(
    dataset_dir: PathLike,
    class_names: str | Sequence[str],
    datalist: PathLike | None = None,
    section: str = "training",
    multi_label: bool = False,
) -> list[dict[str, Any]]:
    """List videos or images with their classes as :func:`load_datalist`, and check the labels before any training.

    An item's ``label`` is a class index or name, or with ``multi_label``, where a clip may have several classes or
    none, a list of 0 and 1, one a class. An item of frame images with a label a frame becomes an item a frame. Without
    a datalist the folder tells: ``<dataset_dir>/<section>/<class name>/`` holds the videos and images of a class.

    The items are given with ``label`` (class index, or float32 ``(num_classes,)``) and ``group`` (videos that are not
    independent, as those of one patient; by default each is on its own). An answer is given for each ``video``.
    """
    class_names = as_class_names(class_names)
    if datalist is None:
        items = _from_folders(Path(dataset_dir), section, class_names)
    else:
        items = load_datalist(dataset_dir, datalist, section, label_key="", required=("label",))
        if not all(isinstance(item["label"], str) for item in items):
            check_order(datalist, class_names)
    where = f"{datalist or dataset_dir}: {section}"
    if not multi_label:
        items = name_clips([frame for item in items for frame in _frames(item, where)], dataset_dir)
    first: dict[str, Any] = {}
    for item in items:
        video = item["video"]
        item["label"] = _label(item["label"], class_names, multi_label, f"{where}: {video}")
        item["group"] = str(item.get("group", video))
        labels = [first.setdefault(video, item["label"]), item["label"]]
        if not np.array_equal(*labels):
            found = " and ".join(str(label.int().tolist() if multi_label else class_names[label]) for label in labels)
            advice = "give them another `video` each, and the same `group`"
            problem = f"items of the `video` {video} have the labels {found}, but a video has one answer"
            raise ValueError(f"{where}: {problem}; {advice}.")
    if section == "training":
        counts = zip(class_names, _count(items, len(class_names)), strict=True)
        _refuse_missing([name for name, count in counts if count == 0], "item", datalist or dataset_dir)
    if len(class_names) == 1 and not multi_label:
        advice = "name two, or set `multi_label` and label items [0] or [1]"
        raise ValueError(f"`class_names` is {class_names}: with one class there is nothing to tell apart; {advice}.")
    return items


def _from_folders(dataset_dir: Path, section: str, class_names: list[str]) -> list[dict[str, Any]]:
    folder = dataset_dir / section
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: is no folder; without `datalist` it must hold one folder a class.")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    if strange := sorted(set(found) - set(class_names)):
        raise ValueError(f"{folder / strange[0]}: is none of `class_names` {class_names}.")
    items = [
        {"image": os.path.realpath(path), "label": index}
        for index, name in enumerate(class_names)
        for path in list_files(folder / name, CLIP_SUFFIXES + IMAGE_SUFFIXES)
    ]
    if not items:
        raise ValueError(f"{folder}: its folders {found} hold no video and no image.")
    return name_clips(items, dataset_dir)


def _frames(item: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """One item a frame where each frame has a label of its own, else the item."""
    if not isinstance(item["label"], list) or not isinstance(item["image"], list):
        return [item]
    images, labels = item["image"], item["label"]
    if len(labels) != len(images):
        raise ValueError(f"{where}: {images[0]} and following: {len(images)} frames have {len(labels)} labels.")
    kept = {"group": item["video"]} | {key: item[key] for key in ("group", "weight") if key in item}
    return [{**kept, "image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def _label(label: Any, class_names: list[str], multi_label: bool, where: str) -> Any:
    if multi_label:
        if not isinstance(label, list) or len(label) != len(class_names) or not all(value in (0, 1) for value in label):
            raise ValueError(f"{where}: `label` must be a list of {len(class_names)} times 0 or 1, found {label!r}.")
        return torch.tensor(label, dtype=torch.float32)
    if label in class_names:
        return class_names.index(label)
    if not isinstance(label, int) or not 0 <= label < len(class_names):
        allowed = f"from 0 to {len(class_names) - 1} or one of {class_names}"
        raise ValueError(f"{where}: `label` must be {allowed}, found {label!r}.")
    return int(label)


def class_weights(
    weights: Sequence[float] | str | None, items: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> list[float] | None:
    """Weights of the classes in a loss.

    They are given with one a class, or by ``"balanced"``, which makes up for the frequencies: the number of all
    training items divided by the number of classes and that of the items of a class; where classes do not exclude each
    other, the items without it divided by those with it. An item counts as often as its ``weight`` lets it be seen.
    """
    if weights == "balanced":
        counts, total = _count(items, len(class_names)), sum(item.get("weight", 1) for item in items)
        if torch.is_tensor(items[0]["label"]):
            return [(total - count) / count or 1.0 for count in counts]  # of a class that all have there is no other
        return [total / (len(class_names) * count) for count in counts]
    if isinstance(weights, str) or (weights is not None and len(weights) != len(class_names)):
        raise ValueError(f'`class_weights` must be "balanced" or {len(class_names)} numbers, found {weights!r}.')
    return None if weights is None else list(weights)


def _count(items: Sequence[dict[str, Any]], num_classes: int) -> list[float]:
    """Number of items of each class, by how often they are seen."""
    one_hot = torch.eye(num_classes, dtype=torch.float64)
    labels = ((item["label"], item.get("weight", 1)) for item in items)
    seen = [(label if torch.is_tensor(label) else one_hot[label]) * weight for label, weight in labels]
    return torch.stack(seen).sum(dim=0).tolist()
