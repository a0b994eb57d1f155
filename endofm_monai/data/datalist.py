# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple

from endofm_monai.data.naming import name_clips, name_videos
from endofm_monai.data.readers.base import split_frames
from endofm_monai.data.readers.paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_clips, has_suffix

__all__ = [
    "class_weights",
    "key_frames",
    "list_videos",
    "load_box_datalist",
    "load_datalist",
    "load_labeled_clips",
    "result_path",
]

logger = logging.getLogger(__name__)


def load_datalist(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike | None = None,
    section: str = "training",
    image_key: str = "image",
    label_key: str = "label",
    required: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """List the clips of a dataset, and check before any training that their files are there.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file in MONAI's decathlon-like format, ``{"training": [{"image": "video.mp4", "label": 1}]}``,
            with paths relative to ``dataset_dir``; ``video.mp4#frames=0-149`` is a part of a video. By default every
            clip below ``dataset_dir`` is listed, see :func:`endofm_monai.data.find_clips`.
        section: the list to take from the JSON file.
        image_key: key of the clip: a path or, for frame images, a list of paths.
        label_key: key of the label, if there is one: strings are paths, anything else is kept as it is.
        required: keys that every item must have.

    Returns:
        the items, with absolute paths.

    Raises:
        FileNotFoundError: when ``dataset_dir``, the JSON file or a listed file does not exist.
        ValueError: when there are no clips, the JSON file is malformed, or an item lacks its image or a ``required``
            key, points outside ``dataset_dir`` (also by a link) or lists the same image as another one.

    Example::

        load_datalist("PolypDiag", "PolypDiag/datalist.json", section="validation")
    """
    if not os.path.isdir(dataset_dir):
        raise FileNotFoundError(f"{dataset_dir}: `dataset_dir` is not an existing folder.")
    root = os.path.realpath(dataset_dir)
    if datalist is None:
        if required:
            raise ValueError(f"{dataset_dir}: without `datalist` the clips have no {', '.join(required)}; give one.")
        clips = [{image_key: str(clip)} for clip in find_clips(root)]
        if not clips:
            raise ValueError(f"{dataset_dir}: holds no video, DICOM or NIfTI file, and no folder of frame images.")
        return clips

    items: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for index, listed in enumerate(_read_section(datalist, section)):
        where = f"{datalist}: {section}[{index}]"
        item = dict(listed) if isinstance(listed, dict) else {image_key: listed}
        paths = item.get(image_key)
        if not paths or not all(isinstance(path, str) for path in ensure_tuple(paths)):
            raise ValueError(f"{where} needs `{image_key}`, a path or a list of paths, found {listed}.")
        missing = [key for key in required if item.get(key) is None]
        if missing:
            raise ValueError(f"{where} has no {', '.join(missing)}, which this task needs: {item[image_key]}.")
        for key in (image_key, label_key):
            if isinstance(item.get(key), list):
                item[key] = [_resolve(entry, root, f"{where} {key}") for entry in item[key]]
            elif key in item:
                item[key] = _resolve(item[key], root, f"{where} {key}")
        first = seen.setdefault(str(item[image_key]), index)
        if first != index:
            raise ValueError(f"{where} lists the same {image_key} as {section}[{first}]: {item[image_key]}.")
        items.append(item)
    return items


def _read_section(datalist: str | os.PathLike, section: str) -> list[Any]:
    with open(datalist, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{datalist}: is not valid JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get(section), list):
        found = f"keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{datalist}: needs the list `{section}`, found {found}.")
    if not content[section]:
        raise ValueError(f"{datalist}: the list `{section}` is empty.")
    return content[section]


def _resolve(value: Any, root: str, where: str) -> Any:
    """Make a path absolute, and check that it exists and lies in ``root``; leave what is no string as it is."""
    if not isinstance(value, str):
        return value
    path = os.path.normpath(os.path.join(root, value))
    try:
        real = os.path.realpath(split_frames(path)[0], strict=True)
    except OSError as error:
        raise FileNotFoundError(f"{where}: {path} does not exist.") from error
    if os.path.commonpath([real, root]) != root:
        raise ValueError(f"{where}: {value} lies outside the dataset's folder {root}.")
    return path


def load_box_datalist(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike,
    section: str = "training",
    num_classes: int = 1,
) -> list[dict[str, Any]]:
    """List videos with boxes, as :func:`endofm_monai.data.load_datalist`, and check every box before any training.

    An item has ``image``, and ``box`` and ``box_label`` with a list a frame: of boxes ``[x1, y1, x2, y2]`` in pixels of
    the frame, x to the right and y downwards, and of their classes from 1 to ``num_classes``; both empty where nothing
    is to be seen. Sides may lie beyond the frame: they are clipped when it is loaded.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file.
        section: the list to take from it.
        num_classes: number K of classes.

    Returns:
        the items, with absolute paths, ``name`` and ``video``, see :func:`endofm_monai.data.name_clips`.

    Raises:
        FileNotFoundError: as ``load_datalist``.
        ValueError: as ``load_datalist``, and when a frame's boxes and labels differ in number, a box is not finite, is
            inverted or has no area, or a label is no class. The message names datalist, video, frame and box.
    """
    items = name_clips(load_datalist(dataset_dir, datalist, section, required=("box", "box_label")), dataset_dir)
    for index, item in enumerate(items):
        where = f"{datalist}: {section}[{index}] ({item['name']})"
        frames = len(item["box"])
        if len(item["box_label"]) != frames or (not isinstance(item["image"], str) and len(item["image"]) != frames):
            raise ValueError(f"{where}: needs a list of boxes and of labels for each frame, found {frames} and others.")
        for frame, (boxes, labels) in enumerate(zip(item["box"], item["box_label"], strict=True)):
            if len(boxes) != len(labels):
                raise ValueError(f"{where}, frame {frame}: has {len(boxes)} boxes, but {len(labels)} labels.")
            for box, label in zip(boxes, labels, strict=True):
                _check(box, label, num_classes, f"{where}, frame {frame}")
    return items


def key_frames(items: Sequence[dict[str, Any]], interval: int = 1) -> list[dict[str, Any]]:
    """Give one item for each key frame of videos: the video's item and ``frame_index``.

    Args:
        items: videos of :func:`load_box_datalist`.
        interval: frames from one key frame of a video to the next.
    """
    return [{**item, "frame_index": index} for item in items for index in range(0, len(item["box"]), interval)]


def _check(box: Any, label: Any, num_classes: int, where: str) -> None:
    if len(box) != 4 or not all(isinstance(side, (int, float)) and math.isfinite(side) for side in box):
        raise ValueError(f"{where}: a box needs four finite numbers [x1, y1, x2, y2], found {box}.")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{where}: the box {box} is inverted or has no area; expected x1 < x2 and y1 < y2.")
    if label not in range(1, num_classes + 1):
        raise ValueError(f"{where}: the label {label!r} is no class; expected 1 to {num_classes}.")


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


def list_videos(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike | None = None,
    section: str = "test",
    single_images: bool = False,
    results_dir: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """List the videos to look at, without those that have been done.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file, see :func:`endofm_monai.data.load_datalist`; by default all videos below ``dataset_dir``.
        section: the list to take from the JSON file.
        single_images: without a datalist, list the images below ``dataset_dir``, each as a video of one frame.
        results_dir: folder with the results of a former run; a video whose result says that it could be read is done.

    Returns:
        items with ``image``, ``video``, see :func:`endofm_monai.data.name_videos`, and ``name``, see
        :func:`endofm_monai.data.name_clips`.

    Raises:
        FileNotFoundError: when a folder or file does not exist.
        ValueError: when there is no video.
    """
    if datalist is None and single_images:
        root = Path(os.path.realpath(dataset_dir))
        items = [{"image": str(path)} for path in sorted(root.rglob("*")) if has_suffix(path, IMAGE_SUFFIXES)]
        if not items:
            raise ValueError(f"{dataset_dir}: holds no image.")
    else:
        items = load_datalist(dataset_dir, datalist, section, label_key="")
    videos = name_clips(name_videos(items, dataset_dir), dataset_dir)
    if results_dir is None:
        return videos
    left = [item for item in videos if not _is_done(result_path(results_dir, item["name"]))]
    if len(left) < len(videos):
        logger.info(f"{len(videos) - len(left)} of {len(videos)} videos are done already, {len(left)} are left.")
    return left


def result_path(results_dir: str | os.PathLike, name: str) -> Path:
    """The JSON file with the result for the item of this ``name``."""
    return Path(results_dir, f"{name}.json")


def _is_done(path: Path) -> bool:
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["status"] == "ok"
