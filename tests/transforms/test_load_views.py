# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from endofm_monai.data.readers.base import ClipInfo, ClipReader
from endofm_monai.transforms import RandLoadViews, RandLoadViewsd, ViewPlan
from endofm_monai.transforms import views as module


class CountedClip(ClipReader):
    """A clip whose frame ``i`` has the value ``i % 256``; it keeps what was read."""

    def __init__(self, frames, fps=30.0):
        super().__init__("counted")
        self.frames, self.fps, self.decoded = frames, fps, []

    def _probe(self):
        return ClipInfo(self.frames, self.fps, 4, 6, self.frames / self.fps)

    def _decode(self, wanted):
        self.decoded.append(wanted)
        return ((index, np.full((4, 6, 3), index % 256, np.uint8)) for index in wanted)


@pytest.fixture(autouse=True)
def _open_readers(monkeypatch):
    opened = module.open_clip
    monkeypatch.setattr(
        module,
        "open_clip",
        lambda source, **options: source if isinstance(source, ClipReader) else opened(source, **options),
    )


def test_each_view_gets_its_frames_and_each_frame_is_read_once():
    plan = ViewPlan()
    reader = CountedClip(150)
    clip, view_frames = RandLoadViews(plan).set_random_state(seed=4)(reader)

    random_state = np.random.RandomState(4)
    random_state.randint(1)  # the start of the window, which is the whole clip
    expected = plan.draw_frames(150, random_state)
    (decoded,) = reader.decoded
    assert decoded == sorted(set(torch.cat(expected).tolist()))
    assert clip.shape == (3, len(decoded), 4, 6)
    assert clip.dtype == torch.uint8
    for frames, wanted in zip(view_frames, expected, strict=True):
        assert frames.dtype == torch.int64
        assert clip[0, frames, 0, 0].tolist() == wanted.tolist()


@pytest.mark.parametrize(("fps", "window", "width"), [(30, 8 * 32 / 30, 256), (10, 8 * 32 / 30, 85), (30, 2, 60)])
def test_views_of_a_long_video_lie_in_a_window(fps, window, width):
    transform = RandLoadViews(ViewPlan(), window=window).set_random_state(seed=0)
    starts = []
    for _ in range(200):
        reader = CountedClip(1000, fps)
        transform(reader)
        (decoded,) = reader.decoded
        assert decoded[-1] - decoded[0] == width - 1  # the first global view starts it, the last one ends it
        starts.append(decoded[0])
    assert min(starts) < 50
    assert max(starts) > 1000 - width - 50


def test_a_single_frame_is_enough():
    clip, view_frames = RandLoadViews(ViewPlan())(CountedClip(1))
    assert clip.shape == (3, 1, 4, 6)
    assert [frames.tolist() for frames in view_frames] == [[0] * view.frames for view in ViewPlan()]


def test_dictionary_version_keeps_other_keys_and_gives_a_seed():
    def run(random_seed, **item):
        compose = Compose([RandLoadViewsd("image", ViewPlan())]).set_random_state(seed=random_seed)
        return compose({"image": CountedClip(100), "label": 1, **item})

    first, again, other = run(0), run(0), run(1)
    assert first.keys() == {"image", "label", "view_frames", "seed"}
    assert torch.equal(torch.cat(first["view_frames"]), torch.cat(again["view_frames"]))
    assert first["seed"] == again["seed"] != other["seed"]
    assert run(0, seed=7)["seed"] == 7


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`window`"):
        RandLoadViews(ViewPlan(), window=0)
    with pytest.raises(ValueError, match="`keys` must be one key"):
        RandLoadViewsd(["image", "other"], ViewPlan())


def test_a_folder_of_frames(tmp_path):
    for index in range(12):
        Image.new("RGB", (6, 4), (index, 0, 0)).save(tmp_path / f"{index}.png")
    plan = ViewPlan((3,), ())
    clip, (frames,) = RandLoadViews(plan)(tmp_path)
    assert clip[0, frames, 0, 0].tolist() == [0, 6, 11]
