# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Scripts of the ``datasets`` folder, files for them, and what they made."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from small_sets import write_frames

DATASETS = Path(__file__).parents[2] / "datasets"
HEIGHT, WIDTH = 48, 64


def script(path: str) -> ModuleType:
    """Load a script of the ``datasets`` folder, which is no package."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), DATASETS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare_set(name: str, source: Path, output: Path, **options: Any) -> str:
    """Prepare a dataset by its script, in this process and without pictures of it."""
    prepare = script(f"{name}/prepare.py").prepare
    return prepare(str(source), str(output), **{"workers": 1, "stats": False, **options})


def picture(seed: int, shift: int = 0) -> np.ndarray:
    """A smooth random texture ``(48, 64, 3)`` that moves by ``shift`` pixels."""
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    return np.roll(np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)), shift, 1)


def write_image(path: Path, seed: int = 0, shift: int = 0, image: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, shift) if image is None else image).save(path)
    return path


def write_mask(path: Path, box: Any = (10, 8, 30, 24), size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Write a mask with a rectangle ``x1, y1, x2, y2``, smeared by JPEG where the suffix says so."""
    mask = np.zeros(size, np.uint8)
    if box is not None:
        mask[box[1] : box[3], box[0] : box[2]] = 255
    return write_image(path, image=mask)


def write_clip(path: Path, seed: int = 0, frames: int = 20, rate: int = 30, title: str = "") -> Path:
    """Write a video of a moving texture at 30 frames a second."""
    return write_frames(path, [picture(seed, number) for number in range(frames)], rate, title=title)


def read(output: Path, name: str = "datalist.json") -> dict[str, Any]:
    return json.loads((output / name).read_text(encoding="utf-8"))


def items_of(output: Path) -> dict[str, list[dict[str, Any]]]:
    """The items of each section of a prepared set."""
    datalist = read(output)
    return {key: datalist[key] for key in ("training", "validation", "test") if key in datalist}
