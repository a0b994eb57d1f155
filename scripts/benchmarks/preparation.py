# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""How fast videos are prepared, next to the ffmpeg program on the same videos with one thread each."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from benchmarks.leakage import measure_leakage
from skimage.transform import resize

from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset

__all__ = ["Preparation"]

SECONDS = 5
X264 = {"preset": "medium", "crf": "18", "g": "30", "mbtree": "0"}


class Preparation:
    """Parts of the benchmark of the dataset preparation."""

    def encode(self, videos: int = 4, size: tuple[int, int] = (720, 960), repeat: int = 3) -> dict[str, float]:
        """Cut videos of 10 s into clips of 5 s with a short side of 256, as published.

        Args:
            videos: number of videos.
            size: height and width of the videos.
            repeat: number of runs, of which the medians are taken; both programs take turns.

        Returns:
            clips a minute and process, and the ratio to the ffmpeg program (Debian's, for comparison only).

        Raises:
            FileNotFoundError: when there is no ffmpeg program.
        """
        if shutil.which("ffmpeg") is None:
            raise FileNotFoundError("ffmpeg: the program is needed for the comparison, and is not installed")
        with tempfile.TemporaryDirectory() as folder:
            paths = [write_video(Path(folder) / f"{number}.mp4", number, size) for number in range(videos)]
            ours, theirs = [], []
            for run in range(repeat):
                output = Path(folder) / f"ours_{run}"
                ours.append(seconds(partial(prepare, paths, output, mode="encode", clip_seconds=SECONDS)))
                theirs.append(seconds(partial(cut_all_with_ffmpeg, paths, run)))
        clips = 2 * videos
        return {
            "clips_per_minute": 60 * clips / median(ours),
            "ffmpeg_clips_per_minute": 60 * clips / median(theirs),
            "ratio_to_ffmpeg": median(theirs) / median(ours),
        }

    def index(self, videos: int = 20, size: tuple[int, int] = (720, 960)) -> dict[str, float]:
        """List clips of videos of 10 s without encoding them, checksums included.

        Returns:
            videos a second and process.
        """
        with tempfile.TemporaryDirectory() as folder:
            first = write_video(Path(folder) / "0.mp4", 0, size)
            paths = [first, *(Path(shutil.copy(first, Path(folder) / f"{number}.mp4")) for number in range(1, videos))]
            took = seconds(lambda: prepare(paths, Path(folder) / "index", mode="index", clip_seconds=SECONDS))
        return {"videos_per_second": videos / took}

    def leakage(self, folder: str, max_distance: int = 52, min_likeness: float = 0.65) -> dict[str, Any]:
        """See which planted copies of the videos in a folder are found, and how quiet it is on unrelated ones.

        Args:
            folder: videos of which no two show the same.
            max_distance: see ``datasets/check_leakage.py``.
            min_likeness: see ``datasets/check_leakage.py``.

        Returns:
            see :func:`benchmarks.leakage.measure_leakage`.
        """
        return measure_leakage(folder, max_distance, min_likeness)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    with redirect_stdout(StringIO()):
        function()
    return time.perf_counter() - start


def prepare(paths: list[Path], output: Path, **options: Any) -> None:
    videos = [SourceVideo(path.stem, path) for path in paths]
    prepare_dataset(
        SourceDataset("benchmark", "none"), videos, paths[0].parent, output, workers=1, stats=False, **options
    )


def cut_all_with_ffmpeg(paths: list[Path], run: int) -> None:
    for path in paths:
        cut_with_ffmpeg(path, run)


def cut_with_ffmpeg(path: Path, run: int) -> None:
    """Cut a video with the ffmpeg program as ours is cut, with one thread."""
    settings = [word for name, value in X264.items() for word in ("-mbtree" if name == "mbtree" else f"-{name}", value)]
    command = ["ffmpeg", "-y", "-v", "error", "-threads", "1", "-filter_threads", "1", "-i", str(path)]
    command += ["-vf", "fps=30,scale=-2:256:flags=bilinear", "-c:v", "libx264", "-threads", "1", *settings, "-an"]
    command += ["-f", "segment", "-segment_time", str(SECONDS), "-reset_timestamps", "1"]
    subprocess.run([*command, str(path.with_name(f"ffmpeg_{run}_{path.stem}_%03d.mp4"))], check=True)


def write_video(path: Path, seed: int, size: tuple[int, int]) -> Path:
    """Write 10 s of moving texture at 25 frames a second."""
    rng = np.random.default_rng(seed)
    still = resize(rng.integers(30, 226, (24, 48, 3)).astype(np.float32), (size[0], 2 * size[1]), order=3)
    still = (still + rng.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for shift in range(250):
            picture = np.ascontiguousarray(still[:, 3 * shift : 3 * shift + size[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
