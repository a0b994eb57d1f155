# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Any

import numpy as np
import torch
from endoscope import film
from generate import SAME_BYTES, film_all
from PIL import Image
from torchvision.transforms.v2.functional import to_image

from endofm_monai.data.masks import read_mask
from endofm_monai.formats import write_video
from endofm_monai.preparation import claim_settings, run_from_command_line
from endofm_monai.preparation.index import read_prepared, relative, write_derived

SEED, FPS = 0, 25


def film_stills(
    folder: str, output: str, frames: int = 32, size: tuple[int, int] = (128, 160), workers: int | None = None
) -> str:
    """Move the sample data's virtual endoscope over the training stills of a prepared set: videos for pre-training.

    Complete videos are kept, so that a stopped run can simply be started again. Gives the path of the datalist.

    Args:
        folder: output of a ``prepare.py``, of stills with masks.
        output: folder to write to, a prepared set as well.
        frames: number of frames a video.
        size: height and width in pixels, multiples of 4.
        workers: number of processes; by default, one a processor core.
    """
    manifest, lists, source = read_prepared(folder)
    target = Path(output)
    own = {"frames": frames, "size": [*size], "seed": SEED, "fps": FPS}
    claim_settings(target / "settings.json", {"source": relative(folder, target), **own})
    names = {f"videos/{item['video']}.mp4": item for item in lists["training"]}
    clips = [(source, target, name, item, frames, size) for name, item in names.items() if not (target / name).exists()]
    film_all(write_one, clips, len(names), workers)
    training = [{"image": name, "video": item["video"]} for name, item in names.items()]
    return write_derived(target, manifest, "filmed", {"training": training})


def write_one(source: Path, target: Path, name: str, item: dict[str, Any], frames: int, size: tuple[int, int]) -> None:
    """Film one still, as its name says."""
    (image,), (mask,) = item["image"], item["mask"]
    still = to_image(Image.open(source / image).convert("RGB")) / 255
    polyp = torch.from_numpy(read_mask(source / mask))[None].float()
    polyp *= polyp.mean() >= 0.01  # what is smaller may not fill enough of any frame to be looked for
    video, _ = film(np.random.default_rng([SEED, *name.encode()]), still, polyp, frames, size)
    write_video(target / name, video, FPS, **SAME_BYTES)


if __name__ == "__main__":
    run_from_command_line(film_stills)
