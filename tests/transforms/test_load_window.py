# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from endofm_monai.data import ClipReadError
from endofm_monai.transforms import LoadWindow, LoadWindowd, RandLoadClip, RandLoadClipd

FRAMES = 40


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of frames whose pixels are their number."""
    for number in range(FRAMES):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def numbers(frames: torch.Tensor) -> list[int]:
    return frames[0, :, 0, 0].tolist()


def test_random_windows_reach_the_whole_clip(clip):
    load = RandLoadClip(num_frames=4, sampling_rate=2).set_random_state(seed=0)
    seen = [numbers(load(clip)) for _ in range(200)]
    assert all([frame - frames[0] for frame in frames] == [0, 2, 4, 7] for frames in seen)
    assert {frames[0] for frames in seen} == set(range(FRAMES - 8 + 1))


def test_random_window_of_a_short_clip_is_all_of_it(clip):
    assert numbers(RandLoadClip(4, 32)(clip)) == [0, 13, 26, 39]
    assert numbers(RandLoadClip(4, 32, reference_short_videos=True)(clip)) == [0, 39, 39, 39]


def test_same_seed_same_window(clip):
    load = RandLoadClipd("image", num_frames=2, sampling_rate=1)
    first = [numbers(load.set_random_state(seed=seed)({"image": clip})["image"]) for seed in range(10)]
    again = [numbers(load.set_random_state(seed=seed)({"image": clip})["image"]) for seed in range(10)]
    assert first == again
    assert len({tuple(frames) for frames in first}) > 1


def test_windows_are_those_that_the_item_names(clip):
    load = LoadWindowd("image", num_frames=4, sampling_rate=2)
    windows = [load({"image": clip, "window": window, "num_windows": 5}) for window in range(5)]
    assert [numbers(item["image"]) for item in windows] == [[s, s + 2, s + 4, s + 7] for s in (0, 8, 16, 24, 32)]
    assert windows[1]["image"].meta["frame_indices"].tolist() == [8, 10, 12, 15]
    assert numbers(load({"image": clip})["image"]) == [0, 2, 4, 7]


def test_video_stays_open_between_its_windows(clip, monkeypatch):
    opened = []
    from endofm_monai.transforms import load as load_window

    original = load_window.open_clip
    monkeypatch.setattr(load_window, "open_clip", lambda source, **kwargs: opened.append(source) or original(source))
    load = LoadWindow(2, 1)
    for window in range(3):
        load(clip, window, 3)
    assert opened == [clip]
    load(clip, 0, 3)
    assert len(pickle.loads(pickle.dumps(load))(clip, 1, 3)) == 3  # as it travels to a worker
    assert len(opened) == 3


def test_unreadable_video_is_named(tmp_path):
    with pytest.raises(ClipReadError, match=f"^{tmp_path}/none.mp4: does not exist"):
        LoadWindow()(tmp_path / "none.mp4")
