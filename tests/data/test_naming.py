# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from endofm_monai.data import clip_names, name_clips


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("/data/sub/clip.mp4", "sub/clip"),
        ("/data/sub/clip.mp4#frames=10-19", "sub/clip_10-19"),
        ("/data/scan.nii.gz", "scan"),
        ("/data/seq.1", "seq.1"),
        ("/data", "data"),
        (["/data/a/1.png"], "a/1"),
        (["/data/a/1.png", "/data/a/2.png"], "a/1-2"),
        (["/data/1.png", "/data/2.png"], "1-2"),
        ("/other/clip.mp4", "other/clip"),
    ],
)
def test_names_are_paths_without_suffix(clip, name):
    assert clip_names([clip], "/data") == [name]


def test_no_two_clips_have_the_same_name():
    frames = ["/data/b/1.png", "/data/b/2.png", "/data/b/3.png"]
    clips = ["/data/a.mp4", "/data/a.avi", "/data/a_2.mp4", "/data/a.mp4#frames=0-9", frames, frames[::2], frames[0]]
    assert clip_names(clips, "/data") == ["a", "a_2", "a_2_2", "a_0-9", "b/1-3", "b/1-3_2", "b/1"]


def test_items_keep_their_video_and_get_a_name():
    first, second, third = name_clips(
        [
            {"image": "/data/a.mp4#frames=0-9", "video": "a"},
            {"image": "/data/a.mp4#frames=10-19", "video": "a"},
            {"image": "/data/b.mp4"},
        ],
        "/data",
    )
    assert (first["name"], first["video"]) == ("a_0-9", "a")
    assert (second["name"], second["video"]) == ("a_10-19", "a")
    assert (third["name"], third["video"]) == ("b", "b")
