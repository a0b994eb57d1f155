# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import av
import fire
import numpy as np
from rendering import render_video
from skimage.io import imread, imsave
from tqdm import tqdm

from endofm_monai.preparation import claim_settings, write_lists
from endofm_monai.utils import atomic_path

VERSION = 1  # of the pictures: raise it when equal settings no longer give equal pixels
ABOUT = {
    "name": "Endo-FM sample data",
    "description": "Synthetic colonoscopy-like videos: half of them show one polyp, with its mask and box per frame.",
    "note": "Computer-generated, for trying the software only. Never draw clinical conclusions from these data, "
    "nor from a network trained or evaluated on them.",
    "licence": "CC0-1.0",
    "labels": {"0": "no polyp", "1": "polyp"},
    "box_labels": {"1": "polyp"},
}


def generate(
    output: str,
    videos: int = 40,
    frames: int = 64,
    size: tuple[int, int] = (160, 192),
    seed: int = 0,
    fps: int = 25,
    workers: int | None = None,
) -> str:
    """Write synthetic endoscopy videos with class labels, masks and boxes, for trying the software only.

    Complete videos are kept, so that a stopped run can simply be started again.

    Args:
        output: folder to write to.
        videos: number of videos, an even number of at least 6; every second one shows a polyp.
        frames: number of frames a video, at least 2.
        size: height and width in pixels, multiples of 4 and at least 64.
        seed: equal seeds give equal pixels and an equal datalist.
        fps: frames a second.
        workers: number of processes; by default, one a processor core.

    Returns:
        the path of the datalist.
    """
    if videos < 6 or videos % 2:
        raise ValueError(f"videos: expected an even number of at least 6, found {videos}")
    for argument, value, least in (("frames", frames, 2), ("seed", seed, 0), ("fps", fps, 1)):
        if value < least:
            raise ValueError(f"{argument}: expected at least {least}, found {value}")
    if np.shape(size) != (2,) or min(size) < 64 or any(side % 4 for side in size):
        raise ValueError(f"size: expected height,width in multiples of 4, at least 64, found {size}")
    folder = Path(output)
    settings = {"version": VERSION, "videos": videos, "frames": frames, "size": [*size], "seed": seed, "fps": fps}
    claim_settings(folder / "settings.json", settings)

    names = [f"video_{index:03d}" for index in range(videos)]
    files = [(f"videos/{name}.mp4", *mask_paths(name, frames)) for name in names]
    missing = [index for index, paths in enumerate(files) if not all((folder / path).exists() for path in paths)]
    write = partial(write_video, folder, frames=frames, size=size, seed=seed, fps=fps)
    with ProcessPoolExecutor(workers) as pool:
        written = pool.map(write, missing, [names[index] for index in missing])
        for _ in tqdm(written, "drawing videos", total=videos, initial=videos - len(missing), unit="video"):
            pass

    items = [describe(folder, name, index % 2, frames) for index, name in enumerate(names)]
    splits = {split: [items[index] for index in indices] for split, indices in split_by_video(videos).items()}
    datalist = folder / "datalist.json"
    write_lists(datalist, {**ABOUT, "settings": settings, **splits})
    return str(datalist)


def split_by_video(videos: int) -> dict[str, list[int]]:
    """Split the indices of the videos into training, validation and test, each with as many 0 as 1 labels."""
    pairs = videos // 2
    test, validation = max(1, pairs // 4), max(1, pairs // 8)
    first, second = 2 * (pairs - test - validation), 2 * (pairs - test)
    splits = {"training": range(first), "validation": range(first, second), "test": range(second, videos)}
    return {split: [*indices] for split, indices in splits.items()}


def mask_paths(name: str, frames: int) -> list[str]:
    """Give the masks of a video, relative to the output folder."""
    return [f"masks/{name}/{frame:05d}.png" for frame in range(frames)]


def write_video(
    folder: Path, index: int, name: str, *, frames: int, size: tuple[int, int], seed: int, fps: int
) -> None:
    """Draw one video, which depends on the seed and its index only, and write its masks and then its mp4 file."""
    video, masks = render_video(np.random.default_rng([seed, index]), bool(index % 2), frames, size)
    for path, mask in zip(mask_paths(name, frames), masks, strict=True):
        with atomic_path(folder / path) as temporary:
            imsave(temporary, mask.astype(np.uint8) * 255, check_contrast=False)
    with atomic_path(folder / f"videos/{name}.mp4") as temporary, av.open(str(temporary), "w") as container:
        # x264's macroblock tree and several threads give other bytes from run to run
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "mbtree": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def describe(folder: Path, name: str, label: int, frames: int) -> dict[str, Any]:
    """Make the item of a video for the datalist; the boxes are measured on the masks."""
    paths = mask_paths(name, frames)
    boxes = [find_boxes(imread(folder / path) > 0) for path in paths]
    return {
        "image": f"videos/{name}.mp4",
        "label": label,
        "mask": paths,
        "box": boxes,
        "box_label": [[1] * len(frame) for frame in boxes],
    }


def find_boxes(mask: np.ndarray) -> list[list[int]]:
    """Give the extent of a mask ``(H, W)`` as no or one box ``[x1, y1, x2, y2]``, x2 and y2 exclusive."""
    y, x = np.nonzero(mask)
    return [[int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]] if len(x) else []


if __name__ == "__main__":
    fire.Fire(generate)
