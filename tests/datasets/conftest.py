# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from dataset_miniatures import miniature, prepared
from PIL import Image

__all__ = ["miniature", "prepared"]  # fixtures of the tests below

DATASETS = Path(__file__).parents[2] / "datasets"
HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Any:
    """Hundreds of small files are written here; what is safe after a power failure, no test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("endofm_monai.utils.files.os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Loads a script of the ``datasets`` folder, which is no package."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), DATASETS / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def picture(seed: int, shift: int = 0) -> np.ndarray:
    """A smooth random texture ``(48, 64, 3)`` that moves by ``shift`` pixels."""
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 8, 3), dtype=np.uint8)
    return np.roll(np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)), shift, 1)


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    def write(path: Path, seed: int = 0, shift: int = 0, image: Any = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed, shift) if image is None else image).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def write_mask() -> Callable[..., Path]:
    """Writes a mask with a rectangle ``x1, y1, x2, y2``, smeared by JPEG where the suffix says so."""

    def write(path: Path, box: tuple[int, int, int, int] | None = (10, 8, 30, 24), size: Any = (HEIGHT, WIDTH)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros(size, np.uint8)
        if box is not None:
            mask[box[1] : box[3], box[0] : box[2]] = 255
        Image.fromarray(mask).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., Path]:
    """Writes a video of a moving texture at 30 frames a second."""

    def write(path: Path, seed: int = 0, frames: int = 20, rate: int = 30, **metadata: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            container.metadata.update(metadata)
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(seed, number), format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


def read_json(output: Path, name: str = "datalist.json") -> dict[str, Any]:
    return json.loads((output / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def read() -> Callable[..., dict[str, Any]]:
    return read_json


@pytest.fixture(scope="session")
def items_of() -> Callable[[Path], dict[str, list[dict[str, Any]]]]:
    """Gives the items of each section of a prepared set."""

    def sections(output: Path) -> dict[str, list[dict[str, Any]]]:
        datalist = read_json(output)
        return {key: datalist[key] for key in ("training", "validation", "test") if key in datalist}

    return sections


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, bytes]]:
    """Gives all files in a folder."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
