# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from endofm_monai.data.masks import mask_boxes, read_mask
from endofm_monai.data.readers.base import ClipInfo, ClipReadError, join_frames
from endofm_monai.data.readers.open_clip import open_clip
from endofm_monai.data.readers.paths import frame_images, natural_key
from endofm_monai.preparation.encode import choose_mode, encode_clips
from endofm_monai.preparation.sources import PreparationSettings, SourceVideo
from endofm_monai.utils import TEMPORARY_PREFIX, atomic_path, sha256

__all__ = [
    "clean_name",
    "clip_ranges",
    "images_by_stem",
    "name_share",
    "prepare_video",
    "read_record",
    "record_path",
    "relative",
    "remove_leftovers",
    "subfolders",
    "write_json",
]


def clean_name(path: str) -> str:
    """Make a video's name of its path: other characters than letters, digits, ``._-`` and ``/`` become ``_``."""
    return "/".join(re.sub(r"[^A-Za-z0-9._-]", "_", part).lstrip("._-") or "_" for part in path.split("/"))


def name_share(name: str) -> float:
    """Give a number from 0 to 1 that depends on nothing but a name, to split a set that others will be added to."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def images_by_stem(folder: Path) -> dict[str, Path]:
    """List the images in a folder by their names without suffix, in natural order.

    Raises:
        ValueError: when two differ in their suffix only, so that it is not clear which one is meant.
    """
    images: dict[str, Path] = {}
    for path in frame_images(folder):
        if path.stem in images:
            raise ValueError(f"{folder}: holds both {images[path.stem].name} and {path.name}")
        images[path.stem] = path
    return images


def subfolders(folder: Path) -> list[str]:
    """List the names of the folders in a folder in natural order, without hidden ones; none where there is none."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def relative(path: str | os.PathLike, root: str | os.PathLike) -> str:
    """Give a path relative to a folder, with ``/`` on every system; neither needs to exist."""
    return Path(os.path.relpath(path, root)).as_posix()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary, a list of dictionaries with one item a line; a file that holds the same stays untouched."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, Sequence) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def remove_leftovers(output: Path) -> None:
    """Delete the temporary files of ``atomic_path`` that a killed run left in its output folder."""
    for path in output.rglob(f"{TEMPORARY_PREFIX}*"):
        path.unlink()


def clip_ranges(frames: int, length: int | None, remainder: str = "merge") -> list[tuple[int, int]]:
    """Cut a video into clips of equal length.

    A video that is shorter than a clip is one clip, whatever the policy.

    Args:
        frames: number of frames of the video, at least 1.
        length: number of frames a clip, at least 1; ``None`` for one clip of the whole video.
        remainder: what happens to the frames that are left over: ``"merge"`` adds them to the last clip, as for the
            published clips, which so have up to ``2 * length - 1`` frames; ``"keep"`` makes a shorter clip of them;
            ``"drop"`` leaves them out.

    Returns:
        the first and last frame of each clip, both included.

    Raises:
        ValueError: when ``length`` is not positive or ``remainder`` is none of the three.

    Example::

        clip_ranges(400, 150)  # [(0, 149), (150, 399)]
    """
    if remainder not in ("merge", "keep", "drop"):
        raise ValueError(f'`remainder` must be "merge", "keep" or "drop", found "{remainder}"')
    if length is None:
        return [(0, frames - 1)]
    if length < 1:
        raise ValueError(f"a clip must have at least 1 frame, found {length}")
    starts = list(range(0, max(frames - length, 0) + 1, length))
    ranges = [(start, min(start + length, frames) - 1) for start in starts]
    last = ranges[-1][1]
    if remainder == "merge":
        ranges[-1] = ranges[-1][0], frames - 1
    elif remainder == "keep" and last < frames - 1:
        ranges.append((last + 1, frames - 1))
    return ranges


_FORMAT = 2  # of records: those of another one are made again


def record_path(output: Path, name: str) -> Path:
    """Name the file that says that a video is finished, and what came of it."""
    return output / "records" / f"{name}.json"


def read_record(video: SourceVideo, output: Path) -> dict[str, Any] | None:
    """Give what an earlier run found and made of a video; ``None`` where anything about it has changed since."""
    path = record_path(output, video.name)
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["stamp"] != _stamp(video) or not all((output / file).exists() for file in record["written"]):
        return None
    return record


def prepare_video(
    video: SourceVideo, source: Path, output: Path, settings: PreparationSettings, private: bool = False
) -> dict[str, Any]:
    """Check one video, make its clips, and note that it is finished.

    Args:
        video: the video.
        source: folder that the paths of the sources are relative to.
        output: folder to write to.
        settings: what to make of it.
        private: do not name the sources.

    Returns:
        the record: ``stamp`` of the sources, the files that were ``written``, and the ``video``'s entry in the
        manifest, with paths relative to ``source`` in mode index, else to ``output``; or ``problem``, why there is
        none.

    Raises:
        OSError: when the output cannot be written.
    """
    try:
        frame_labels = {**video.frame_labels, **_check_files(video)}
        mode, reason = choose_mode(video) if settings.mode == "auto" else (settings.mode, "as asked for")
        info, brightness = _look_at(video)
        length = None if settings.clip_seconds is None else max(1, round(settings.clip_seconds * info.fps))
        ranges = clip_ranges(info.frames, length, settings.remainder)
        if mode == "encode":
            images = encode_clips(video, ranges, output, settings)
            items: list[dict[str, Any]] = [{"image": image} for image in images]
        elif mode == "copy":
            items = _cut_frames(_copy_frames(video, output), ranges)
        elif video.frames:
            keys = {"image": video.frames, **({"mask": video.masks} if video.masks else {})}
            items = _cut_frames({key: [relative(path, source) for path in keys[key]] for key in keys}, ranges)
        else:
            path, whole = relative(video.files[0], source), (0, info.frames - 1)
            items = [{"image": path if frames == whole else join_frames(path, *frames)} for frames in ranges]
        digest = sha256(video.files)
    except ClipReadError as error:
        return {"problem": str(error)}

    clips, written = [], []
    for item, (first, last) in zip(items, ranges, strict=True):
        labels = {key: list(values[first : last + 1]) for key, values in frame_labels.items()}
        clip: dict[str, Any] = {
            "item": {**item, **video.labels, **labels, "video": video.name},
            "source": [first, last],
        }
        if mode != "index":
            files = [file for value in item.values() for file in ([value] if isinstance(value, str) else value)]
            clip["sha256"] = sha256(output / file for file in files)
            written += files
        clips.append(clip)
    entry = {
        "name": video.name,
        "section": video.section,
        "source": [] if private else [relative(path, source) for path in video.files],
        "sha256": digest,
        **vars(info),
        "brightness": brightness,
        "mode": mode,
        "reason": reason,
        "clips": clips,
    }
    record = {"stamp": _stamp(video), "written": written, "video": entry}
    write_json(record_path(output, video.name), record)
    return record


def _stamp(video: SourceVideo) -> str:
    """Digest everything that a video's record depends on but the settings, without reading the files."""
    sources = [(path.stat().st_size, path.stat().st_mtime_ns) for path in video.files if path.exists()]
    return hashlib.sha256(repr((_FORMAT, video, sources)).encode()).hexdigest()


def _check_files(video: SourceVideo) -> dict[str, list[Any]]:
    """Check that all files are there, and that all frames and masks are of one size.

    Returns:
        the boxes of the masks, if they are wanted.
    """
    missing = [path for path in video.files if not path.is_file()]
    if missing:
        raise ClipReadError(f"{missing[0]}: is missing ({len(missing)} of {len(video.files)} files are)")
    if isinstance(video.image, Path):
        return {}
    sizes = {path: _image_size(path) for path in video.files}
    for path, size in sizes.items():
        if size != sizes[video.files[0]]:
            expected = "{}x{} (width x height)".format(*sizes[video.files[0]])
            raise ClipReadError(f"{path}: expected {expected} as {video.files[0].name}, found {size[0]}x{size[1]}")
    boxes = [mask_boxes(read_mask(path)) for path in video.masks]
    if video.mask_label is None:
        return {}
    return {"box": boxes, "box_label": [[video.mask_label] * len(frame) for frame in boxes]}


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ClipReadError(f"{path}: is not a readable image ({error})") from error


def _look_at(video: SourceVideo) -> tuple[ClipInfo, float]:
    """Probe a video, and read its first, middle and last frame, so that one that is cut off is found.

    Returns:
        what it holds, and its mean brightness from 0 to 1.
    """
    with open_clip(video.frames or video.files[0], fps=video.fps) as reader:
        info = reader.probe()
        frames = reader.read([0, info.frames // 2, info.frames - 1])
    return info, round(frames.float().mean().item() / 255, 4)


def _cut_frames(paths: dict[str, list[str]], ranges: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Cut lists of one path a frame into clips."""
    return [{key: values[first : last + 1] for key, values in paths.items()} for first, last in ranges]


def _copy_frames(video: SourceVideo, output: Path) -> dict[str, list[str]]:
    """Write the frames as they are, TIFF images as PNG, and the masks as PNG images with the values 0 and 255.

    Returns:
        the paths of the images and masks, relative to ``output``.
    """
    paths: dict[str, list[str]] = {"image": []}
    for frame in video.frames:
        is_tiff = frame.suffix.lower() in (".tif", ".tiff")
        name = f"frames/{_place(video, frame)}{'.png' if is_tiff else frame.suffix.lower()}"
        with atomic_path(output / name) as temporary:
            if is_tiff:
                with Image.open(frame) as image:
                    image.convert("RGB").save(temporary)
            else:
                shutil.copyfile(frame, temporary)
        paths["image"].append(name)
    for mask, frame in zip(video.masks, video.frames, strict=False):
        name = f"masks/{_place(video, frame)}.png"
        with atomic_path(output / name) as temporary:
            Image.fromarray(read_mask(mask)).convert("L").save(temporary)
        paths.setdefault("mask", []).append(name)
    return paths


def _place(video: SourceVideo, frame: Path) -> str:
    return video.name if len(video.frames) == 1 else f"{video.name}/{frame.stem}"
