# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Which copies of real videos the leakage check finds, and which unrelated videos it takes for copies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from tqdm import tqdm

from endofm_monai.data import find_clips, open_clip
from endofm_monai.preparation.leakage import ClipHashes, Match, confirm_match, find_matches, hash_clip

__all__ = ["measure_leakage"]

Frames = list[np.ndarray]


def measure_leakage(folder: str, max_distance: int, min_likeness: float) -> dict[str, Any]:
    """Plant copies of each video in a folder, and look for them among all videos.

    Args:
        folder: videos of which no two show the same.
        max_distance: see ``datasets/check_leakage.py``.
        min_likeness: see ``datasets/check_leakage.py``.

    Returns:
        for each kind of copy how many of them were found, the lowest likeness of one and the greatest distance of its
        hashes; and the pairs of unrelated videos that were reported, with the greatest likeness of a pair.
    """
    videos = find_clips(folder)
    names = [video.relative_to(folder).as_posix() for video in videos]
    originals = [hash_clip(name, name, str(video)) for name, video in zip(names, videos, strict=True)]
    found: dict[str, list[Match]] = {kind: [] for kind in COPIES}
    for video, original in zip(tqdm(videos, "planting copies", unit="video"), originals, strict=True):
        with open_clip(video) as reader:
            info = reader.probe()
            frames = list(reader.read(range(info.frames)).permute(1, 2, 3, 0).numpy())
        with tempfile.TemporaryDirectory() as temporary:
            for kind, (change, crf) in COPIES.items():
                path = write_video(Path(temporary) / f"{kind}.mp4", change(frames), info.fps, crf)
                found[kind] += look([original, hash_clip(kind, "copy", str(path))], max_distance)
    unrelated = look(originals, max_distance)
    return {
        "videos": len(videos),
        "copies": {
            kind: {
                "found": sum(match.likeness >= min_likeness for match in matches),
                "lowest_likeness": round(min((match.likeness for match in matches), default=0.0), 3),
                "greatest_distance": max((match.pairs[0][0] for match in matches), default=0),
            }
            for kind, matches in found.items()
        },
        "unrelated_pairs": len(videos) * (len(videos) - 1) // 2,
        "unrelated_with_close_hashes": len(unrelated),
        "unrelated_reported": sum(match.likeness >= min_likeness for match in unrelated),
        "unrelated_greatest_likeness": round(max((match.likeness for match in unrelated), default=0.0), 3),
    }


def look(clips: list[ClipHashes], max_distance: int) -> list[Match]:
    return [confirm_match(match) for match in find_matches(clips, max_distance)]


def resized(frames: Iterable[np.ndarray], share: float) -> Frames:
    images = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    return [
        np.asarray(image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BILINEAR))
        for image in images
    ]


def cropped(frames: Frames, left: float, top: float, right: float, bottom: float) -> Frames:
    """Cut shares of the width and height off."""
    height, width = frames[0].shape[:2]
    rows = slice(int(top * height), height - int(bottom * height))
    columns = slice(int(left * width), width - int(right * width))
    return [frame[rows, columns] for frame in frames]


def shortened(frames: Frames) -> Frames:
    return frames[len(frames) // 3 :][: max(4, len(frames) // 4)]


COPIES: dict[str, tuple[Callable[[Frames], Frames], int]] = {
    "re-encoded, CRF 34": (lambda frames: frames, 34),
    "half size": (lambda frames: resized(frames, 0.5), 23),
    "a third of the size": (lambda frames: resized(frames, 0.33), 23),
    "flipped left to right": (lambda frames: [frame[:, ::-1] for frame in frames], 23),
    "flipped top to bottom": (lambda frames: [frame[::-1] for frame in frames], 23),
    "a quarter of the time": (shortened, 23),
    "without 5 % on each side": (lambda frames: cropped(frames, 0.05, 0.05, 0.05, 0.05), 23),
    "without 10 % on each side": (lambda frames: cropped(frames, 0.1, 0.1, 0.1, 0.1), 23),
    "without 10 % on one side": (lambda frames: cropped(frames, 0.1, 0, 0, 0), 23),
    "without 10 % in one corner": (lambda frames: cropped(frames, 0.1, 0.1, 0, 0), 23),
    "quarter, 10 % cropped, flipped, half size, CRF 30": (
        lambda frames: resized(cropped([frame[:, ::-1] for frame in shortened(frames)], 0.1, 0.1, 0.1, 0.1), 0.5),
        30,
    ),
}


def write_video(path: Path, frames: Frames, fps: float, crf: int) -> Path:
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps), options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            even = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return path
