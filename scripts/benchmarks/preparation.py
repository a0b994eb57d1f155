# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""How fast videos are prepared, next to the ffmpeg program, and which copies of videos the leakage check finds."""

import shutil
import subprocess
import tempfile
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks.measure import moving_texture, seconds_of_call
from PIL import Image
from tqdm import tqdm

from endofm_monai.data import find_clips, open_clip
from endofm_monai.formats import write_video
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset
from endofm_monai.preparation import leakage as check

__all__ = ["encode", "index", "leakage"]

Frames = list[np.ndarray]
Cut = tuple[float, float, float, float]
BILINEAR = Image.Resampling.BILINEAR
SECONDS = 5
SIZE = (720, 960)


def encode(videos: int = 4, size: tuple[int, int] = SIZE, repeat: int = 3) -> dict[str, float]:
    """Cut videos of 10 s into clips of 5 s with a short side of 256, as published, with one thread: clips a minute.

    The ffmpeg program (for comparison only) does the same in turn.
    """
    if shutil.which("ffmpeg") is None:
        raise FileNotFoundError("ffmpeg: the program is needed for the comparison, and is not installed")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        sources = [(Path(folder) / f"{number}.mp4", moving_texture(250, size, number)) for number in range(videos)]
        paths = [write_video(path, frames, 25, crf=20) for path, frames in sources]
        for run in range(repeat):
            output = Path(folder) / f"ours_{run}"
            ours.append(seconds_of_call(partial(_prepare, paths, output, mode="encode")))
            theirs.append(sum(seconds_of_call(partial(cut_with_ffmpeg, path, run)) for path in paths))
    ours_rate, rate = (60 * 2 * videos / median(seconds) for seconds in (ours, theirs))
    return {"clips_per_minute": ours_rate, "ffmpeg_clips_per_minute": rate, "ratio_to_ffmpeg": ours_rate / rate}


def index(videos: int = 20, size: tuple[int, int] = SIZE) -> dict[str, float]:
    """List clips of videos of 10 s without encoding them, checksums included: videos a second and process."""
    with tempfile.TemporaryDirectory() as folder:
        first = write_video(Path(folder) / "0.mp4", moving_texture(250, size), 25, crf=20)
        paths = [first, *(Path(shutil.copy(first, Path(folder) / f"{number}.mp4")) for number in range(1, videos))]
        prepare = partial(_prepare, paths, first.parent / "i", mode="index")
        return {"videos_per_second": videos / seconds_of_call(prepare)}


def leakage(
    folder: str, max_distance: int = check.MAX_DISTANCE, min_likeness: float = check.MIN_LIKENESS
) -> dict[str, Any]:
    """Plant copies of each video in a folder, of which no two show the same, and look for them among all videos.

    It gives for each kind of copy how many were found, the lowest likeness of one and the greatest distance of its
    hashes; and the unrelated pairs that were reported.
    """

    def look(clips: list[check.ClipHashes]) -> list[check.Match]:
        return [check.confirm_match(match) for match in check.find_matches(clips, max_distance)]

    videos = find_clips(folder)
    names = [video.relative_to(folder).as_posix() for video in videos]
    originals = [check.hash_clip(name, name, str(video)) for name, video in zip(names, videos, strict=True)]
    found: dict[str, list[check.Match]] = {kind: [] for kind in COPIES}
    for video, original in zip(tqdm(videos, "planting copies", unit="video"), originals, strict=True):
        with open_clip(video) as reader:
            info = reader.probe()
            frames = list(reader.read(range(info.frames)).permute(1, 2, 3, 0).numpy())
        with tempfile.TemporaryDirectory() as temporary:
            quarter = frames[len(frames) // 3 :][: max(4, len(frames) // 4)]
            for kind, (changes, crf) in COPIES.items():
                copy = copied(quarter if "quarter" in kind else frames, **changes)
                path = write_video(Path(temporary) / f"{kind}.mp4", copy, round(info.fps), crf=crf)
                found[kind] += look([original, check.hash_clip(kind, "copy", str(path))])
    unrelated, copies = look(originals), {}
    for kind, matches in found.items():
        copies[kind] = {
            "found": sum(match.likeness >= min_likeness for match in matches),
            "lowest_likeness": round(min((match.likeness for match in matches), default=0.0), 3),
            "greatest_distance": max((match.pairs[0][0] for match in matches), default=0),
        }
    return {
        "videos": len(videos),
        "copies": copies,
        "unrelated_pairs": len(videos) * (len(videos) - 1) // 2,
        "unrelated_with_close_hashes": len(unrelated),
        "unrelated_reported": sum(match.likeness >= min_likeness for match in unrelated),
        "unrelated_greatest_likeness": round(max((match.likeness for match in unrelated), default=0.0), 3),
    }


def copied(frames: Frames, step: tuple[int, int] = (1, 1), cut: Cut = (0, 0, 0, 0), size: float = 1) -> Frames:
    """Flip frames (a step of -1), cut shares of their width and height off (left, top, right, bottom), resize them."""
    height, width = frames[0].shape[:2]
    left, top, right, bottom = (int(share * (width, height)[place % 2]) for place, share in enumerate(cut))
    images = [frame[:: step[0], :: step[1]][top : height - bottom, left : width - right] for frame in frames]
    sides = (int((width - left - right) * size), int((height - top - bottom) * size))
    if size == 1:
        return images
    return [np.asarray(Image.fromarray(np.ascontiguousarray(each)).resize(sides, BILINEAR)) for each in images]


COPIES: dict[str, tuple[dict[str, Any], int]] = {
    "re-encoded, CRF 34": ({}, 34),
    "half size": ({"size": 0.5}, 23),
    "a third of the size": ({"size": 0.33}, 23),
    "flipped left to right": ({"step": (1, -1)}, 23),
    "flipped top to bottom": ({"step": (-1, 1)}, 23),
    "a quarter of the time": ({}, 23),
    "without 5 % on each side": ({"cut": (0.05,) * 4}, 23),
    "without 10 % on each side": ({"cut": (0.1,) * 4}, 23),
    "without 10 % on one side": ({"cut": (0.1, 0, 0, 0)}, 23),
    "without 10 % in one corner": ({"cut": (0.1, 0.1, 0, 0)}, 23),
    "quarter, 10 % cropped, flipped, half size, CRF 30": ({"step": (1, -1), "cut": (0.1,) * 4, "size": 0.5}, 30),
}


def _prepare(paths: list[Path], output: Path, mode: str) -> None:
    videos = [SourceVideo(path.stem, path) for path in paths]
    options: dict[str, Any] = {"mode": mode, "clip_seconds": SECONDS, "workers": 1, "stats": False}
    with redirect_stdout(StringIO()):
        prepare_dataset(SourceDataset("benchmark", "none"), videos, paths[0].parent, output, **options)


def cut_with_ffmpeg(path: Path, run: int) -> None:
    """Cut a video with the ffmpeg program as ours is cut, with one thread."""
    command = ["ffmpeg", "-y", "-v", "error", "-threads", "1", "-filter_threads", "1", "-i", str(path)]
    command += ["-vf", "fps=30,scale=-2:256:flags=bilinear", "-c:v", "libx264", "-threads", "1", "-preset", "medium"]
    command += ["-crf", "18", "-g", "30", "-mbtree", "0", "-an"]
    command += ["-f", "segment", "-segment_time", str(SECONDS), "-reset_timestamps", "1"]
    subprocess.run([*command, str(path.with_name(f"ffmpeg_{run}_{path.stem}_%03d.mp4"))], check=True)
