# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from PIL import Image

from endofm_monai.data import ClipReadError
from endofm_monai.transforms import LoadClip, LoadClipd

FRAMES = 10


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of frames whose pixels are their number."""
    for number in range(FRAMES):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("num_frames", "sampling", "expected"),
    [
        (None, "uniform", list(range(10))),
        (4, "uniform", [0, 3, 6, 9]),
        (8, "uniform", [0, 1, 2, 3, 5, 6, 7, 9]),
        (1, "uniform", [0]),
        (15, "uniform", [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9]),
        (4, "center", [3, 4, 5, 6]),
        (12, "center", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]),
    ],
)
def test_frames_and_metadata(clip: Path, num_frames: int | None, sampling: str, expected: list[int]) -> None:
    frames = LoadClip(num_frames, sampling, fps=20)(clip)
    assert isinstance(frames, MetaTensor)
    assert frames.dtype == torch.uint8
    assert frames.shape == (3, len(expected), 4, 6)
    assert frames[1, :, 2, 3].tolist() == expected
    assert frames.meta["frame_indices"].tolist() == expected
    assert frames.meta["filename_or_obj"] == str(clip)
    assert frames.meta["spatial_shape"].tolist() == [len(expected), 4, 6]
    assert (frames.meta["frames"], frames.meta["fps"]) == (FRAMES, 20)


def test_every_frame_of_a_long_clip() -> None:
    assert LoadClip().frame_indices(100_000).equal(torch.arange(100_000))
    assert LoadClip(99_999, "center").frame_indices(100_000).equal(torch.arange(99_999))


def test_dictionary_items_collate(clip: Path) -> None:
    load = LoadClipd("image", num_frames=2)
    item = {"image": clip, "label": 1}
    batch = list_data_collate([load(item), load(item)])
    assert item["image"] == clip
    assert batch["image"].shape == (2, 3, 2, 4, 6)
    assert batch["label"].tolist() == [1, 1]
    with pytest.raises(KeyError, match="image"):
        load({"label": 1})
    assert LoadClipd("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}


def test_bad_arguments_and_clips(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`num_frames` must be positive .* found 0"):
        LoadClip(0)
    with pytest.raises(ValueError, match='`sampling` must be "uniform" or "center", found "random"'):
        LoadClip(8, "random")
    with pytest.raises(ClipReadError, match=f"^{tmp_path}/none.mp4: does not exist$"):
        LoadClip()(tmp_path / "none.mp4")
