# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from endoscope import film
from skimage.io import imread, imsave
from torchvision.transforms.v2.functional import to_image
from tqdm import tqdm

from endofm_monai.data import mask_boxes
from endofm_monai.formats import write_video
from endofm_monai.preparation import claim_settings, write_lists
from endofm_monai.utils import atomic_path, run_from_command_line

VERSION = 3  # of the pictures: raise it when equal settings no longer give equal pixels
STILLS = Path(__file__).parent / "stills"
NUM_STILLS = 60  # those with an odd number show a polyp, and have a mask
# x264's macroblock tree and several threads give other bytes from run to run; with key frames alone, a training decodes
# the frames that it wants and no others.
SAME_BYTES = {"mbtree": 0, "threads": 1, "g": 1}
ABOUT = {
    "name": "Endo-FM sample data",
    "description": "A virtual endoscope moves over stills of PolypGen: half of the videos show a polyp, with its mask.",
    "note": "Made of single stills, for trying the software only. Never draw clinical conclusions from these data, "
    "nor from a network trained or evaluated on them.",
    "licence": "CC BY 4.0, see datasets/sample/ATTRIBUTION.md",
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
    """Write endoscopy-like videos with class labels, masks and boxes, made of stills, for trying the software only.

    Complete videos are kept, so that a stopped run can simply be started again. Gives the path of the datalist.

    Args:
        output: folder to write to.
        videos: number of videos, an even number of at least 6; every second one shows a polyp.
        frames: number of frames a video, at least 2.
        size: height and width in pixels, multiples of 4 and at least 64.
        seed: equal seeds give equal pixels and an equal datalist.
        fps: frames a second.
        workers: number of processes; by default, one a processor core.
    """
    for argument, value, least in (("videos", videos, 6), ("frames", frames, 2), ("seed", seed, 0), ("fps", fps, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{argument}: expected a whole number of at least {least}, found {value!r}")
    if videos % 2:
        raise ValueError(f"videos: expected an even number, found {videos}")
    if np.shape(size) != (2,) or not all(isinstance(side, int) and side >= 64 and side % 4 == 0 for side in size):
        raise ValueError(f"size: expected height,width in multiples of 4, at least 64, found {size!r}")
    folder = Path(output)
    settings = {"version": VERSION, "videos": videos, "frames": frames, "size": [*size], "seed": seed, "fps": fps}
    claim_settings(folder / "settings.json", settings)

    names = [f"video_{index:03d}" for index in range(videos)]
    files = [(f"videos/{name}.mp4", *mask_paths(name, frames)) for name in names]
    missing = [index for index, paths in enumerate(files) if not all((folder / path).exists() for path in paths)]
    stills = choose_stills(videos)
    clips = [(folder, index, stills[index], names[index], frames, size, seed, fps) for index in missing]
    film_all(write_clip, clips, videos, workers)

    items = [describe(folder, *entry, frames) for entry in zip(names, stills, strict=True)]
    splits = {split: [items[index] for index in indices] for split, indices in split_by_video(videos).items()}
    datalist = folder / "datalist.json"
    write_lists(datalist, {**ABOUT, "settings": settings, **splits})
    return str(datalist)


def film_all(write: Callable[..., None], clips: Sequence[tuple[Any, ...]], total: int, workers: int | None) -> None:
    """Write clips, in processes of one thread each, as several give other bits; show the time left of the ``total``."""
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        written = pool.map(write, *zip(*clips, strict=True))
        for _ in tqdm(written, "filming stills", total=total, initial=total - len(clips), unit="video"):
            pass


def split_by_video(videos: int) -> dict[str, range]:
    """Split the indices of the videos into training, validation and test, each with as many 0 as 1 labels."""
    pairs = videos // 2
    test, validation = max(1, pairs // 4), max(1, pairs // 8)
    first, second = 2 * (pairs - test - validation), 2 * (pairs - test)
    return {"training": range(first), "validation": range(first, second), "test": range(second, videos)}


def choose_stills(videos: int) -> list[int]:
    """Give the number of each video's still: parts share none, and what has a polyp and what has none stay apart."""
    parts = split_by_video(NUM_STILLS)
    return np.concatenate([np.resize(parts[name], len(part)) for name, part in split_by_video(videos).items()]).tolist()


def mask_paths(name: str, frames: int) -> list[str]:
    """Name the masks of a video, relative to the output folder."""
    return [f"masks/{name}/{frame:05d}.png" for frame in range(frames)]


def read_still(still: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a still, float ``(3, h, w)``, and its mask, float ``(1, h, w)``; both 0 to 1."""
    image = to_image(imread(STILLS / f"{still:02d}.jpg")) / 255
    path = STILLS / f"{still:02d}.png"
    return image, to_image(imread(path)) / 255 if path.exists() else torch.zeros_like(image[:1])


def write_clip(
    folder: Path, index: int, still: int, name: str, frames: int, size: tuple[int, int], seed: int, fps: int
) -> None:
    """Film a still, as the seed and the number of the video say, and write the masks and then the mp4 file."""
    video, masks = film(np.random.default_rng([seed, index]), *read_still(still), frames, size)
    for path, mask in zip(mask_paths(name, frames), masks, strict=True):
        with atomic_path(folder / path) as temporary:
            imsave(temporary, mask.astype(np.uint8) * 255, check_contrast=False)
    write_video(folder / f"videos/{name}.mp4", video, fps, **SAME_BYTES)


def describe(folder: Path, name: str, still: int, frames: int) -> dict[str, Any]:
    """Make the item of a video for the datalist; the boxes are measured on the masks."""
    paths = mask_paths(name, frames)
    boxes = [mask_boxes(imread(folder / path) > 0, min_area=1) for path in paths]
    item = {"image": f"videos/{name}.mp4", "still": still, "label": still % 2, "mask": paths}
    return {**item, "box": boxes, "box_label": [[1] * len(frame) for frame in boxes]}


if __name__ == "__main__":
    run_from_command_line(generate)
