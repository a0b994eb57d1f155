# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import ClipReadError, key_frames
from endofm_monai.transforms import RandLoadKeyFramed


@pytest.fixture
def item(tmp_path) -> dict:
    """A video of 12 frames of one color each, with as many boxes in a frame as its number modulo 3."""
    paths = []
    for frame in range(12):
        paths.append(str(tmp_path / f"{frame}.png"))
        Image.fromarray(np.full((20, 30, 3), 10 * frame, np.uint8)).save(paths[-1])
    boxes = [[[1, 2, 8, 9]] * (frame % 3) for frame in range(12)]
    return {"image": paths, "box": boxes, "box_label": [[1] * len(box) for box in boxes], "video": "v"}


@pytest.mark.parametrize("key", [0, 5, 11])
def test_key_frame_comes_first_and_supports_lie_before_and_after_it(item, key):
    load = RandLoadKeyFramed(num_supports=3, window=4).set_random_state(seed=0)
    seen = set()
    for _ in range(40):
        loaded = load({**item, "frame_index": key})
        first, *supports = loaded["frames"]
        assert first == key
        assert (loaded["image"][0, :, 0, 0] // 10).tolist() == loaded["frames"]
        assert [len(box) for box in loaded["box"]] == [frame % 3 for frame in loaded["frames"]]
        assert [len(label) for label in loaded["box_label"]] == [frame % 3 for frame in loaded["frames"]]
        assert all(max(0, key - 4) <= frame <= key for frame in supports[::2])
        assert all(key <= frame <= min(11, key + 4) for frame in supports[1::2])
        seen.update(supports)
    assert seen == {frame for frame in range(12) if 0 < abs(frame - key) <= 4} | ({key} if key in (0, 11) else set())


def test_same_seed_gives_the_same_supports(item):
    runs = [RandLoadKeyFramed().set_random_state(seed=3)({**item, "frame_index": 6})["frames"] for _ in range(2)]
    assert runs[0] == runs[1]


def test_key_frames_are_spread_over_each_video(item):
    assert [listed["frame_index"] for listed in key_frames([item, item], 5)] == [0, 5, 10, 0, 5, 10]


def test_other_number_of_frames_than_annotations_is_named(item):
    item["box"].append([])
    with pytest.raises(ClipReadError, match=r"0\.png: has 12 frames, but boxes are given for 13"):
        RandLoadKeyFramed()({**item, "frame_index": 0})
