# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import logging
import os
import reprlib
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, chain, count
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from endofm_monai.data.readers import ClipReadError, find_clips, join_frames, list_files, open_clip, split_frames
from endofm_monai.data.readers.base import CLIP_SUFFIXES, IMAGE_SUFFIXES, clip_images, natural_key
from endofm_monai.utils import PathLike, read_json

__all__ = [
    "adopt_items", "clip_state", "list_videos", "load_datalist", "name_clips", "resolve_path", "result_path",
    "without_suffix",
]  # fmt: skip

logger = logging.getLogger(__name__)
_MAX_NAME = 200  # bytes; files have up to 255, and suffixes are added
_MASK_FOLDERS = {"gt", "groundtruth", "mask", "masks", "label", "labels", "segmentation", "segmentations"}
_END = 4096  # bytes of a file that tell it from others


def load_datalist(
    dataset_dir: PathLike,
    datalist: PathLike | None = None,
    section: str = "training",
    label_key: str = "label",
    required: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """List the clips of a dataset, and check before any training that their files are there.

    A ``datalist`` is JSON in MONAI's decathlon-like format, ``{"training": [{"image": "video.mp4", "label": 1}]}``, of
    which a ``section`` is taken, with paths relative to ``dataset_dir``: ``image`` is one or, for frame images, a list
    of them, and ``video.mp4#frames=0-149`` a part of a video; at ``label_key`` strings are paths, and anything else is
    kept as it is. Every item must have the keys ``required``. Without a datalist :func:`find_clips` lists all.

    The items are given with absolute paths, ``name`` and ``video``, see :func:`name_clips`.
    """
    if not os.path.isdir(dataset_dir):
        raise FileNotFoundError(f"{dataset_dir}: `dataset_dir` is not an existing folder.")
    root = os.path.realpath(dataset_dir)
    if datalist is None:
        if required:
            raise ValueError(f"{dataset_dir}: without `datalist` the clips have no {', '.join(required)}; give one.")
        items = [{"image": str(clip)} for clip in find_clips(root)]
        if not items:
            raise ValueError(f"{dataset_dir}: holds no video, DICOM or NIfTI file, and no folder of frame images.")
        if masks := [item["image"] for item in items if _of_masks(os.path.relpath(item["image"], root))]:
            named = f"{len(masks)} clips are in folders named as of masks, as {masks[0]}"
            logger.warning(f"{dataset_dir}: {named}; they count as clips, too, unless a `datalist` leaves them out.")
        if os.path.exists(listed := os.path.join(root, "datalist.json")):  # of a prepared dataset, with masks and plots
            advice = f"to take those of the dataset alone, set `datalist` to {listed}."
            logger.warning(f"{dataset_dir}: all pictures and videos in it count as clips, masks too; {advice}")
        return name_clips(items, root)
    items, seen = [], dict[str, int]()
    for index, listed in enumerate(_read_section(datalist, section)):
        where = f"{datalist}: {section}[{index}]"
        item = dict(listed) if isinstance(listed, dict) else {"image": listed}
        check_video(item.get("video", "video"), f"{where} video")
        check_weight(item.get("weight", 1) if section == "training" else 1, where)
        if (group := item.pop("group", None)) not in (None, ""):  # or all without one would be one group
            item["group"] = str(group)  # a number would become a tensor in a batch
        paths = item.get("image")
        if not paths or not all(isinstance(path, str) for path in (paths if isinstance(paths, list) else [paths])):
            found = reprlib.repr(paths) if "image" in item else f"keys {sorted(item)}"
            raise ValueError(f"{where} needs `image`, a path or a list of paths, found {found}.")
        if missing := [key for key in required if item.get(key) is None]:
            raise ValueError(f"{where} has no {', '.join(missing)}, which this task needs: {item['image']}.")
        for key in [key for key in ("image", label_key) if key in item]:
            item[key] = resolve_path(item[key], root, f"{where} {key}")
        if (first := seen.setdefault(str(item["image"]), index)) != index:
            raise ValueError(f"{where} lists the same image as {section}[{first}]: {item['image']}.")
        items.append(item)
    return name_clips(items, root)


def _of_masks(path: str) -> bool:
    parts = {"".join(filter(str.isalpha, part.lower())) for part in path.split(os.sep)}
    return not parts.isdisjoint(_MASK_FOLDERS)


def _read_section(datalist: PathLike, section: str) -> list[Any]:
    content = read_json(datalist, object)
    if not isinstance(content, dict) or not isinstance(content.get(section), list):
        found = f"keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{datalist}: needs the list `{section}`, found {found}; `section` names another.")
    if not content[section]:
        raise ValueError(f"{datalist}: the list `{section}` is empty.")
    training = content.get("training") if section != "training" else None
    known = set().union(*map(_marks, training if isinstance(training, list) else []))
    if shared := sum(not known.isdisjoint(_marks(each)) for each in content[section]):
        logger.warning(
            f"{datalist}: {shared} of {len(content[section])} items of `{section}` are in `training` too, or of a "
            "file, `video` or `group` of it: scores on them do not tell how good new videos will be."
        )
    return content[section]


def _marks(listed: Any) -> set[str]:
    """What an item and one of the training must not both have."""
    item = listed if isinstance(listed, dict) else {"image": listed}
    paths = [path for path in ensure_tuple(item.get("image")) if path and isinstance(path, str)]
    files = {f"image {os.path.normpath(split_frames(path)[0])}" for path in paths}  # of which there may be parts
    return files | {f"{key} {item[key]}" for key in ("video", "group") if item.get(key) not in (None, "")}


def check_video(video: Any, where: str) -> None:
    """Refuse what cannot name results in a folder."""
    with suppress(TypeError, ValueError):
        is_name = not os.path.isabs(video) and ".." not in Path(video).parts and "\0" not in video
        if is_name and 0 < max(len(os.fsencode(part)) for part in video.split("/")) <= _MAX_NAME:
            return
    place = "outside of their folder, or under no name that a file can have"
    expected = f"a relative path whose parts have 1 to {_MAX_NAME} bytes"
    raise ValueError(f"{where}: results of {video!r} would be written {place}; expected {expected}.")


def check_weight(weight: Any, where: Any) -> None:
    """Refuse what cannot say how often a clip is seen in an epoch."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
        raise ValueError(f"{where} weight: expected a positive number, found {weight!r}.")


def resolve_path(value: Any, root: str, where: str) -> Any:
    """Make a path, or each of a list, absolute, and check that it exists and lies in ``root``; else leave the value."""
    if isinstance(value, list):
        return [resolve_path(each, root, where) for each in value]
    if not isinstance(value, str):
        return value
    path = _on_disk(os.path.normpath(os.path.join(root, value)), root)
    try:
        real = os.path.realpath(split_frames(path)[0], strict=True)
    except (OSError, ValueError) as error:  # ValueError: no path at all
        raise FileNotFoundError(f"{where}: {path if path.isprintable() else repr(path)} does not exist.") from error
    if os.path.commonpath([real, root]) != root:
        raise ValueError(f"{where}: {value} lies outside the dataset's folder {root}.")
    return path


def _on_disk(path: str, root: str) -> str:
    """Give a path below ``root`` as the disk spells it: macOS has umlauts of two signs where other lists have one."""
    file, frames = split_frames(path)
    if path.isascii() or not file.startswith(root) or os.path.lexists(file):
        return path
    found = root
    for part in Path(os.path.relpath(file, root)).parts:
        same = unicodedata.normalize("NFC", part)
        names = os.listdir(found) if os.path.isdir(found) else []
        spelled = [part] if part in names else [name for name in names if unicodedata.normalize("NFC", name) == same]
        found = os.path.join(found, *(spelled[:1] or [part]))
    return found if frames is None else join_frames(found, *frames)


def name_clips(items: Sequence[dict[str, Any]], root: PathLike) -> list[dict[str, Any]]:
    """Give items ``name``, what their results are named by, and those without one ``video``, the same.

    No two of a list have the same name, but several may be of one ``video``. A clip has the name of its path from
    ``root`` on without suffix, a part of a video ``<video>_<first>-<last>`` and a list of frames
    ``<folder>/<first>-<last>``. Where names would be the same (``a.mp4`` and ``a.avi``), or to some disks (``A.mp4``),
    the second gets ``_2`` and so on, and where results would replace other files of a run or be replaced by them. Parts
    are separated by ``/``, and cut where with a suffix they would be too long for a file's name.
    """
    root = os.path.realpath(root)
    bases = ["/".join(map(_shorten, _name(item["image"], root).split("/"))) for item in items]
    masks = {_as_stored(f"{base}/masks") for base in bases}  # folders that take the place of what is there
    named, taken = [], {"settings", *masks, *(_as_stored(f"{base}/detections") for base in bases)}
    for item, base in zip(items, bases, strict=True):
        head = next((part for part in accumulate(base.split("/"), "{}/{}".format) if _as_stored(part) in masks), base)
        heads = chain([head], (f"{head}_{number}" for number in count(2)))
        names = ((each, each + base[len(head) :]) for each in heads)
        name = next(pair[1] for pair in names if taken.isdisjoint(map(_as_stored, pair)))
        taken.add(_as_stored(name))
        named.append({"video": name, **item, "name": name})
    return named


def adopt_items(items: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Give items that MONAI Label's stock app lists, of ``image`` and ``label`` files alone, their ``mask`` and names.

    All others are handed back as they are.
    """
    if not items or not all(item.keys() == {"image", "label"} and isinstance(item["label"], str) for item in items):
        return items
    root = os.path.commonpath([os.path.dirname(ensure_tuple(item["image"])[0]) for item in items])
    return name_clips([{**item, "mask": item["label"]} for item in items], root)


def _name(clip: Any, root: str) -> str:
    paths = [os.fspath(path) for path in ensure_tuple(clip)]
    path, frames = split_frames(paths[0])
    parts = [part for part in Path(os.path.relpath(path, root)).parts if part != ".."]
    name = without_suffix("/".join(parts) or os.path.basename(os.path.realpath(path)))
    if len(paths) > 1:
        return f"{name}-{without_suffix(os.path.basename(paths[-1]))}"
    return name if frames is None else f"{name}_{frames[0]}-{frames[1]}"


def _as_stored(name: str) -> str:
    """What is the same of two names that are one file to some disks, as those of Windows and macOS."""
    return unicodedata.normalize("NFC", name).casefold()


def _shorten(name: str) -> str:
    """Cut what with a suffix would be too long for the name of a file."""
    while len(os.fsencode(name)) > _MAX_NAME:
        name = name[:-1]
    return name


def without_suffix(name: str) -> str:
    """The name of a file of a clip; the number at the end of a DICOM file's (``1.2.840.113.7``) is no suffix."""
    found = next((suffix for suffix in CLIP_SUFFIXES + IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(found)]


def list_videos(
    dataset_dir: PathLike,
    datalist: PathLike | None = None,
    section: str = "test",
    single_images: bool = False,
    part_minutes: float | None = None,
    results_dir: PathLike | None = None,
) -> list[dict[str, Any]]:
    """List the videos to look at as :func:`load_datalist`, without those that have been done.

    ``dataset_dir`` may also be one file or a part of a clip, as :func:`endofm_monai.data.open_clip` opens it. Without a
    datalist all videos below it are listed or, with ``single_images``, all images, each as a video of one frame. Videos
    longer than ``part_minutes`` are listed in parts of this length, each with results of its own: so a run that is
    stopped has done those before. Done is a video of which a result in ``results_dir`` says that it could be read; that
    of another file is refused.
    """
    if part_minutes is not None and not part_minutes > 0:
        raise ValueError(f"`part_minutes` must be positive, but got {part_minutes}.")
    root: PathLike = dataset_dir
    file, part = split_frames(os.fspath(dataset_dir))
    if datalist is None and results_dir and Path(results_dir).resolve().is_relative_to(os.path.realpath(file)):
        advice = "choose an `output_dir` outside of it, or name the videos in a `datalist`"
        problem = f"results lie in `dataset_dir`, {file}, and would be taken for videos"
        raise ValueError(f"{results_dir}: {problem}; {advice}.")
    if datalist is None and (part or os.path.isfile(file)):
        root = os.path.realpath(os.path.dirname(dataset_dir))
        videos = name_clips([{"image": os.path.join(root, os.path.basename(dataset_dir))}], root)
    elif datalist is None and single_images:
        images = list_files(Path(os.path.realpath(dataset_dir)), IMAGE_SUFFIXES)
        if not images:
            raise ValueError(f"{dataset_dir}: holds no image.")
        videos = name_clips([{"image": path} for path in sorted(map(str, images), key=natural_key)], root)
    else:
        videos = load_datalist(dataset_dir, datalist, section, label_key="")
    if part_minutes:
        videos = name_clips([part for item in videos for part in _parts(item, part_minutes)], root)
    if results_dir is None:
        return videos
    left = [item for item in videos if not _is_done(result_path(results_dir, item["name"]), item["image"])]
    if len(left) < len(videos):
        logger.info(f"{len(videos) - len(left)} of {len(videos)} videos are done already, {len(left)} are left.")
    return left


def _parts(item: dict[str, Any], minutes: float) -> list[dict[str, Any]]:
    """Parts of a video; what is no longer, is a part or a list already, or cannot be read, stays as it is."""
    image = item["image"]
    if not isinstance(image, str) or split_frames(image)[1] is not None:
        return [item]
    try:
        with open_clip(image) as reader:
            info = reader.probe()
    except ClipReadError:
        return [item]
    length = max(1, round(60 * minutes * info.fps))
    if info.frames <= length:
        return [item]
    firsts = range(0, info.frames, length)
    return [{**item, "image": join_frames(image, first, min(first + length, info.frames) - 1)} for first in firsts]


def result_path(results_dir: PathLike, name: str) -> Path:
    """The JSON file with the result for a clip of this name."""
    return Path(results_dir, f"{name}.json")


def clip_state(clip: str | Sequence[str]) -> list[Any]:
    """Bytes of the files of a clip, and a digest of where they begin and end: the same for a copy of them alone."""
    digest, size = hashlib.sha256(), 0
    for path in clip_images(clip):
        with suppress(OSError), open(path, "rb") as file:  # reading names what is missing
            length = os.fstat(file.fileno()).st_size
            size += length
            for place in (0, max(0, length - _END)):
                file.seek(place)
                digest.update(file.read(_END))
    return [size, digest.hexdigest()]


def _is_done(path: Path, clip: str | Sequence[str]) -> bool:
    result = read_json(path, dict) if path.exists() else {}
    if result.get("status") != "ok":
        return False
    state = clip_state(clip)
    if result.get("state", state) != state:
        first = ensure_tuple(clip)[0]
        raise FileExistsError(f"{path}: is the result of another file than {first}; choose another `output_dir`.")
    return True
