# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Which frames of videos to annotate next: ``python -m endofm_monai.apps.active_learning``."""

import logging
import os
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.utils import ensure_tuple

from endofm_monai.data import ClipReadError, first_frame, join_frames, load_datalist, open_clip, split_frames
from endofm_monai.inferers import Predictor, load_predictor
from endofm_monai.utils import check_number, check_writable, read_json, run_from_command_line, write_json

logger = logging.getLogger(__name__)
Frame = tuple[str, int]  # its file or folder in the dataset's folder, and its number in that


def select_frames(
    scores: npt.ArrayLike | None, count: int, windows: Sequence[Hashable], labeled: Sequence[int] = (), seed: int = 0
) -> list[int]:
    """Choose the frames to annotate next, at most one of a window of neighbors, which would tell the same.

    Gives the indices of ``count`` frames, or of fewer where no more windows are left. The highest ``scores`` ``(N,)``
    come first; between equal ones, or without any, chance decides. ``windows`` name that of each frame; one that has a
    ``labeled`` frame gives no other.
    """
    number = len(windows)
    uncertainty = np.zeros(number) if scores is None else np.asarray(scores, dtype=np.float64)
    if uncertainty.shape != (number,) or not np.isfinite(uncertainty).all():
        raise ValueError(f"`scores` must be one finite number for each of {number} frames, found {uncertainty}.")
    if strange := [index for index in labeled if not 0 <= index < number]:
        raise ValueError(f"`labeled` must hold indices from 0 to {number - 1}, but holds {strange[0]}.")
    taken = {windows[index] for index in labeled}
    best: dict[Hashable, int] = {}
    for index in np.lexsort((np.random.default_rng(seed).random(number), -uncertainty)).tolist():
        if windows[index] not in taken:
            best.setdefault(windows[index], index)
    return list(best.values())[:count]


def choose_frames(
    dataset_dir: str,
    output: str,
    count: int = 20,
    bundle: str | None = None,
    datalist: str | None = None,
    section: str = "training",
    labeled: str | Sequence[str] = "",
    window: int = 8,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Choose the frames to annotate next, and write them to a JSON file.

    Args:
        dataset_dir: folder with videos or folders of frame images.
        output: the file: ``image``, ``frame`` (its number in that, from 0), ``clip`` (the window around it) and
            ``uncertainty`` of each.
        count: how many frames.
        bundle: folder of a trained bundle that is to be uncertain about them; without it they are random.
        datalist: JSON file, as ``datalist.json`` of a prepared dataset; by default all clips below ``dataset_dir``.
        section: section of the datalist.
        labeled: files that this command wrote before, separated by commas, whose frames have been annotated.
        window: frames of a window.
        device: where to compute.
        seed: seed of the draws.
    """
    for key, value in (("count", count), ("window", window), ("seed", seed)):
        check_number(key, value)
    check_writable(Path(output).parent)
    if Path(output).is_dir():
        raise IsADirectoryError(f"{output}: is a folder, expected the JSON file to write")
    predictor = load_predictor(bundle, device) if bundle is not None else None
    images = [item["image"] for item in load_datalist(dataset_dir, datalist, section, label_key="")]
    listed = [_list_frames(image, window, os.path.realpath(dataset_dir)) for image in images]
    clips = {frame: clip for frames in listed for frame, clip in frames}
    done = _read_labeled(labeled.split(",") if isinstance(labeled, str) else labeled, clips)
    scores: dict[Frame, float] = {}
    for image, listing in zip(images, listed, strict=True):
        if predictor and listing:
            scores |= _score(predictor, image, [frame for frame, _ in listing])
    frames = list(scores if predictor else clips)
    if not frames:
        raise ValueError(f"{dataset_dir}: none of its {len(images)} videos can be read.")
    windows = [str(clips[frame]) for frame in frames]
    known = [index for index, frame in enumerate(frames) if frame in done]
    entries = []
    for index in select_frames([*scores.values()] or None, count, windows, known, seed):
        frame = frames[index]
        uncertainty = {"uncertainty": round(scores[frame], 5)} if scores else {}
        entries.append({"image": frame[0], "frame": frame[1], "clip": clips[frame], **uncertainty})
    write_json(output, entries)
    if len(entries) < count:
        why = "a window gives one, or none where one of its frames is labeled"
        logger.warning(f"{output}: has {len(entries)} of {count} frames; {why}.")
    return entries


def _list_frames(image: str | list[str], window: int, root: str) -> list[tuple[Frame, str | list[str]]]:
    """All frames of a clip, and the windows around them, by their places in the dataset's folder."""
    try:
        with open_clip(image) as reader:
            length = reader.probe().frames
    except ClipReadError as error:
        logger.warning(f"A video is left out: {error}")
        return []
    windows = [range(first, min(first + window, length)) for first in range(0, length, window)]
    if not isinstance(image, str) and len(image) > 1:
        names = [os.path.relpath(path, root) for path in image]
        return [((names[n], 0), [names[i] for i in numbers]) for numbers in windows for n in numbers]
    name = str(ensure_tuple(image)[0])
    path, start = os.path.relpath(split_frames(name)[0], root), first_frame(name)
    clips = [(numbers, join_frames(path, start + numbers[0], start + numbers[-1])) for numbers in windows]
    return [((path, start + n), clip) for numbers, clip in clips for n in numbers]


def _read_labeled(files: Sequence[str], known: Collection[Frame]) -> set[Frame]:
    """The frames, among the ``known`` ones, in files that :func:`choose_frames` wrote."""
    found = set()
    for file in filter(None, files):
        for entry in read_json(file, list):
            if not isinstance(entry, dict) or "image" not in entry or not isinstance(entry.get("frame"), int):
                raise ValueError(f"{file}: entries need `image` and `frame`, a number, found {entry!r:.80}.")
            frame = str(entry["image"]), entry["frame"]
            if frame not in known:
                raise ValueError(f"{file}: frame {frame[1]} of {frame[0]} is not among the videos.")
            found.add(frame)
    return found


def _score(predictor: Predictor, image: str | list[str], frames: Sequence[Frame]) -> dict[Frame, float]:
    """How uncertain a predictor is about the frames of a clip, up to the first that cannot be read."""
    scores = {}
    try:
        for frame, (_, answer) in zip(frames, predictor(image), strict=True):
            scores[frame] = predictor.uncertainty(answer)
    except ClipReadError as error:  # after hours with others, which are not lost
        logger.warning(f"The frames from there on are left out: {error}")
    return scores


if __name__ == "__main__":
    run_from_command_line(choose_frames)
