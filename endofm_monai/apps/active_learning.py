# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Which frames of videos to annotate next: ``python -m endofm_monai.apps.active_learning``."""

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from endofm_monai.data import join_frames, load_datalist, open_clip
from endofm_monai.inferers import load_predictor
from endofm_monai.utils import read_json, run_from_command_line, write_json


def select_frames(
    scores: npt.ArrayLike | None, count: int, windows: Sequence[Hashable], labeled: Sequence[int] = (), seed: int = 0
) -> list[int]:
    """Choose the frames to annotate next, at most one of a window of neighbors, which would tell the same.

    Args:
        scores: uncertainty of each of N frames, ``(N,)``; without it the choice is random.
        count: how many frames.
        windows: name of each frame's window.
        labeled: frames that have been annotated; no other frame of their windows is chosen.
        seed: seed of the draw, and of that among equal scores.

    Returns:
        indices of the frames, the most uncertain first; fewer than ``count`` when no more windows are left.
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
    labeled: str = "",
    window: int = 8,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Choose the frames to annotate next, and write them to a JSON file.

    Args:
        dataset_dir: folder with videos or folders of frame images.
        output: the file: ``image``, ``frame`` (from 0), ``clip`` (the window around it), ``uncertainty`` of each.
        count: how many frames.
        bundle: folder of a trained bundle that is to be uncertain about them; without it they are random.
        datalist: JSON file, see :func:`endofm_monai.data.load_datalist`; by default all clips below ``dataset_dir``.
        section: section of the datalist.
        labeled: files that this command wrote before, separated by commas, whose frames have been annotated.
        window: frames of a window.
        device: where to compute.
        seed: seed of the draws.
    """
    predictor = bundle and load_predictor(bundle, device)
    root = os.path.realpath(dataset_dir)
    lengths: dict[str, int] = {}
    scores: list[float] = []
    for image in (item["image"] for item in load_datalist(dataset_dir, datalist, section, label_key="")):
        name = os.path.relpath(image if isinstance(image, str) else os.path.dirname(image[0]), root)
        with open_clip(image) as reader:
            lengths[name] = reader.probe().frames
            if predictor:
                scores += [predictor.uncertainty(answer) for _, answer in predictor(reader)]
    frames = [(name, frame) for name, length in lengths.items() for frame in range(length)]
    done = []
    for file in filter(None, labeled.split(",")):
        for entry in read_json(file, list):
            try:
                name, frame = entry["image"], entry["frame"]
            except (KeyError, TypeError) as error:
                raise ValueError(f"{file}: entries need `image` and `frame`, found {entry!r:.80}.") from error
            if (name, frame) not in frames:
                raise ValueError(f"{file}: frame {frame} of {name} is not among the videos.")
            done.append(frames.index((name, frame)))
    windows = [(name, frame // window) for name, frame in frames]
    entries = []
    for index in select_frames(scores if predictor else None, count, windows, done, seed):
        name, frame = frames[index]
        first = frame // window * window
        clip = join_frames(name, first, min(first + window, lengths[name]) - 1)
        uncertainty = {"uncertainty": round(scores[index], 5)} if predictor else {}
        entries.append({"image": name, "frame": frame, "clip": clip, **uncertainty})
    write_json(output, entries)
    return entries


if __name__ == "__main__":
    run_from_command_line(choose_frames)
