# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from endofm_monai.data.clip_reader import ClipInfo, ClipReadError
from endofm_monai.data.frame_range import join_frames
from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.cutting import clip_ranges
from endofm_monai.data.preparation.encoding import encode_clips
from endofm_monai.data.preparation.files import relative, write_json
from endofm_monai.data.preparation.masks import mask_boxes, read_mask
from endofm_monai.data.preparation.seekability import choose_mode
from endofm_monai.data.preparation.settings import PreparationSettings
from endofm_monai.data.preparation.source_video import SourceVideo
from endofm_monai.utils import atomic_path, sha256

__all__ = ["prepare_video", "read_record", "record_path"]

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
