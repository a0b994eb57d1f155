# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple
from PIL import Image

from endofm_monai.data import ClipReadError, VideoReader, common_size, join_frames, mask_boxes, open_clip, read_mask
from endofm_monai.data.labels import check_box, check_boxes
from endofm_monai.preparation.encode import encode_clips
from endofm_monai.preparation.sources import PreparationSettings, SourceVideo, boxes_of_class
from endofm_monai.utils import PathLike, atomic_path, printable, read_json, sha256, write_json

_FORMAT = 3  # of records: those of another one are made again
_MAX_KEYFRAME_DISTANCE = 300  # frames: 10 s at 30 a second; encoders' own default is 250


def clip_ranges(frames: int, length: int | None, remainder: str = "merge") -> list[tuple[int, int]]:
    """Cut a video of one or more ``frames`` into clips of ``length`` frames each, or keep it whole.

    Gives the first and last frame of each clip, both included; a video that is shorter than a clip is one. What happens
    to the frames that are left over says ``remainder``: ``"merge"`` adds them to the last clip, as for the published
    clips, which so have up to ``2 * length - 1`` frames (400 by 150 make 0 to 149 and 150 to 399); ``"keep"`` makes a
    shorter clip of them; ``"drop"`` leaves them out.
    """
    length = length or frames
    ranges = [(start, min(start + length, frames) - 1) for start in range(0, max(frames - length, 0) + 1, length)]
    first, last = ranges[-1]
    if remainder == "merge":
        ranges[-1] = first, frames - 1
    elif remainder == "keep" and last < frames - 1:
        ranges.append((last + 1, frames - 1))
    return ranges


def choose_mode(video: SourceVideo) -> tuple[str, str]:
    """Say whether a video can be left as it is (``"index"``) or had better be encoded (``"encode"``), and why."""
    if video.frames:
        return "index", "single images"
    with open_clip(video.files[0], fps=video.fps) as reader:
        if not isinstance(reader, VideoReader):
            return "index", "its frames are stored one by one"
        distance, reason = reader.keyframe_distance(), reader.why_slow(_MAX_KEYFRAME_DISTANCE)
    if not reason:
        return "index", f"seekable, a keyframe at least every {distance} frames"
    if video.frame_labels:
        return "index", f"labels belong to single frames, although {reason}"
    return "encode", reason


def prepare_video(
    video: SourceVideo, source: Path, output: Path, settings: PreparationSettings, private: bool = False
) -> dict[str, Any]:
    """Check one video, make its clips in ``output``, and note that it is finished.

    Gives the record: the video's ``name``, ``stamp`` of the sources, the files that were ``written``, and the
    ``video``'s entry in the manifest, with paths relative to ``source`` in mode index, else to ``output``; or
    ``problem``, why there is none. What is ``private`` does not name the sources.
    """
    try:
        frame_labels = {**video.frame_labels, **_check_files(video)}
        if settings.mode == "copy" and not video.frames:
            raise ClipReadError(f"{video.files[0]}: is a video, but mode=copy is for frame images; use index or encode")
        mode, reason = choose_mode(video) if settings.mode == "auto" else (settings.mode, "as asked for")
        with open_clip(video.image, fps=video.fps) as reader:
            info = reader.probe()  # the last frame is read, so that a video that is cut off is found
            if video.frames and info.frames != len(video.frames):
                raise ClipReadError(f"{video.frames[0]}: holds {info.frames} images, expected one")
            brightness = reader.read([0, info.frames // 2, info.frames - 1]).float().mean().item() / 255
        length = None if settings.clip_seconds is None else max(1, round(settings.clip_seconds * info.fps))
        ranges = clip_ranges(info.frames, length, settings.remainder)
        items: list[dict[str, Any]]
        if mode == "encode":
            items = [{"image": path} for path in encode_clips(video, ranges, output, settings)]
        elif mode == "copy" or video.frames:
            root, files = (output, _copy_frames(video, output)) if mode == "copy" else (source, video.pictures)
            listed = {key: [relative(path, root) for path in paths] for key, paths in files.items()}
            items = [{key: paths[first : last + 1] for key, paths in listed.items()} for first, last in ranges]
        else:
            path, whole = relative(video.files[0], source), (0, info.frames - 1)
            items = [{"image": path if frames == whole else join_frames(path, *frames)} for frames in ranges]
    except ClipReadError as error:
        return {"name": video.name, "problem": str(error)}

    clips, written = [], []
    for item, (first, last) in zip(items, ranges, strict=True):
        labels = {key: list(values[first : last + 1]) for key, values in frame_labels.items()}
        clip = {"item": {**item, **video.labels, **labels, "video": video.name}, "source": [first, last]}
        if mode != "index":
            written += paths_of(item)
            clip["sha256"] = sha256(output / file for file in paths_of(item))
        clips.append(clip)
    entry = {
        "name": video.name,
        "section": video.section,
        "source": [] if private else [relative(path, source) for path in video.files],
        "sha256": sha256(video.files),
        **vars(info),
        "brightness": round(brightness, 4),
        "mode": mode,
        "reason": reason,
        "clips": clips,
    }
    record = {"name": video.name, "stamp": _stamp(video), "written": written, "video": entry}
    write_lists(_record_path(video, output), record)
    return record


def read_record(video: SourceVideo, output: Path) -> dict[str, Any] | None:
    """Give what an earlier run found and made of a video; ``None`` where anything about it has changed since."""
    if not (path := _record_path(video, output)).exists():
        return None
    record = read_json(path, dict)
    is_same = record["stamp"] == _stamp(video) and all((output / file).exists() for file in record["written"])
    return record if is_same else None


def paths_of(item: dict[str, Any]) -> list[str]:
    """List the files of a clip's item: of its images, then of its masks."""
    return [path for key in ("image", "mask") for path in ensure_tuple(item.get(key, ()))]


def frame_picture(image: Any, index: int | None = None) -> Image.Image:
    """Read a frame of what :func:`endofm_monai.data.open_clip` opens; the middle one by default."""
    with open_clip(image) as reader:
        frame = reader.read([reader.probe().frames // 2 if index is None else index])[:, 0]
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def relative(path: PathLike, root: PathLike) -> str:
    """Give a path relative to a folder, with ``/`` on every system; neither needs to exist."""
    return Path(os.path.relpath(path, root)).as_posix()


def move_paths(paths: Any, folder: Path, root: Path) -> Any:
    """Make a path relative to ``folder``, or a list of them (None where a frame has none), relative to ``root``."""
    if isinstance(paths, list):
        return [move_paths(path, folder, root) for path in paths]
    return None if paths is None else relative(folder / paths, root)


def read_prepared(folder: PathLike) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Read manifest and datalist of a prepared set, and give the folder that its clips' paths are relative to."""
    manifest, lists = (read_json(Path(folder, f"{name}.json"), dict) for name in ("manifest", "datalist"))
    return manifest, lists, Path(folder, manifest["dataset_dir"])


def write_derived(folder: Path, manifest: dict[str, Any], kind: str, lists: dict[str, Any]) -> str:
    """Write manifest and datalist of a set made of that of a ``manifest``, and give the datalist's path."""
    about = {"name": f"{manifest['name']}, {kind}", "licence": manifest["licence"]}
    write_json(folder / "manifest.json", {**about, "dataset_dir": "."})
    write_lists(folder / "datalist.json", {**about, **lists})
    return str(folder / "datalist.json")


def write_lists(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, a list of dictionaries with one item a line; a file that holds the same stays untouched."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, Sequence) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    text = printable("{\n" + ",\n".join(lines) + "\n}\n")  # whose escapes are those of JSON
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _record_path(video: SourceVideo, output: Path) -> Path:
    return output / "records" / f"{video.name}.json"


def _stamp(video: SourceVideo) -> str:
    """Digest everything that a video's record depends on but the settings, without reading the files."""
    sources = [(path.stat().st_size, path.stat().st_mtime_ns) for path in video.files if path.exists()]
    return hashlib.sha256(repr((_FORMAT, video, sources)).encode()).hexdigest()


def _check_files(video: SourceVideo) -> dict[str, list[Any]]:
    """Check that all frames and masks are there, and of one size; give the boxes of the masks, if they are wanted."""
    if not video.files:
        raise ClipReadError(f"{video.name}: its folder holds no frame images")
    if missing := [path for path in video.files if not path.is_file()]:
        raise ClipReadError(f"{missing[0]}: is missing ({len(missing)} of {len(video.files)} files are)")
    given = video.frame_labels.get("box", ())
    for number, box in ((number, box) for number, boxes in enumerate(given) for box in boxes):
        check_box(box, f"{video.name}, frame {number}")
    if video.frames:
        width, height = common_size(video.files)
        check_boxes(given, height, width, video.name)
    boxes = [mask_boxes(read_mask(path)) for path in video.masks]
    return {} if video.mask_label is None or not video.frames else boxes_of_class(boxes, video.mask_label)


def _copy_frames(video: SourceVideo, output: Path) -> dict[str, list[Path]]:
    """Write frames as they are, TIFF images as PNG, and masks as PNG, 0 and 255."""
    paths: dict[str, list[Path]] = {key: [] for key in video.pictures}
    for frame, mask in zip_longest(video.frames, video.masks):
        place = video.name if len(video.frames) == 1 else f"{video.name}/{frame.stem}"
        suffix = frame.suffix.lower()
        is_tiff = suffix in (".tif", ".tiff")
        paths["image"].append(output / f"frames/{place}{'.png' if is_tiff else suffix}")
        with atomic_path(paths["image"][-1]) as temporary:
            if is_tiff:
                frame_picture(frame, 0).save(temporary)
            else:
                shutil.copyfile(frame, temporary)
        if mask:
            paths["mask"].append(output / f"masks/{place}.png")
            with atomic_path(paths["mask"][-1]) as temporary:
                Image.fromarray(read_mask(mask)).convert("L").save(temporary)
    return paths
