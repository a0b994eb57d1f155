# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import VideoWindows, WindowPlan, cover_videos, list_videos, result_path, sample_videos
from endofm_monai.transforms import LoadClipd


@pytest.fixture
def folder(tmp_path):
    """Two clips of frames whose pixels are their number, of 20 and 3 frames, and a broken one."""
    for name, frames in (("long", 20), ("sub/short", 3), ("torn", 2)):
        (tmp_path / name).mkdir(parents=True)
        for number in range(frames):
            Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / name / f"{number:02d}.png")
    (tmp_path / "torn" / "00.png").write_bytes(b"no image")
    return tmp_path


def test_fixed_number_of_clips_a_video():
    clips = sample_videos([{"image": "a"}, {"image": "b"}], num_windows=2, num_crops=3)
    assert [(clip["image"], clip["window"], clip["crop"]) for clip in clips[:7]] == [
        *(("a", window, crop) for window in (0, 1) for crop in (0, 1, 2)),
        ("b", 0, 0),
    ]
    assert {(clip["num_windows"], clip["num_crops"]) for clip in clips} == {(2, 3)}
    with pytest.raises(ValueError, match="must be positive, found 0 and 1"):
        sample_videos([], num_windows=0)


def test_windows_cover_each_video_and_errors_name_it(folder):
    items = list_videos(folder)
    windows = VideoWindows(cover_videos(items, num_frames=4, sampling_rate=2), LoadClipd("image", WindowPlan(4, 2)))
    seen = [windows[index] for index in range(len(windows))]
    frames = [item["image"].meta["frame_indices"].tolist() for item in seen if item.get("video") == "long"]
    assert frames == [[0, 2, 4, 7], [6, 8, 10, 13], [12, 14, 16, 19]]
    assert [item["window"] for item in seen if item.get("video") == "sub/short"] == [0]
    (broken,) = (item["broken"] for item in seen if "broken" in item)
    assert broken.startswith("torn: ")
    assert "00.png" in broken
    with pytest.raises(ValueError, match=r"`overlap` must be in \[0, 1\)"):
        cover_videos(items, overlap=1.0)


def test_overlap_gives_more_windows(folder):
    (item,) = (item for item in list_videos(folder) if item["video"] == "long")
    assert len(cover_videos([item], 4, 2, overlap=0.5)) == 4
    assert len(cover_videos([item], 4, 2, overlap=0.5, num_crops=3)) == 12


def test_single_images(folder):
    names = [item["video"] for item in list_videos(folder, single_images=True)]
    assert len(names) == 25
    assert names[0] == "long/00.png"
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        list_videos(folder / "empty", single_images=True)


def test_videos_with_a_good_result_are_done(folder, tmp_path):
    for video, status in (("long", "ok"), ("torn", "unreadable")):
        path = result_path(tmp_path / "results", video)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"status": status}))
    left = {item["video"] for item in list_videos(folder, results_dir=tmp_path / "results")}
    assert left == {"sub/short", "torn"}


def test_frames_of_one_folder_have_names_of_their_own(folder):
    datalist = folder / "datalist.json"
    lists = [["long/00.png", "long/01.png"], ["long/02.png"], ["long/00.png"]]
    clips = [*({"image": frames} for frames in lists), {"image": "long", "video": "x"}]
    datalist.write_text(json.dumps({"test": clips}))
    names = [item["video"] for item in list_videos(folder, datalist)]
    assert names == ["long/00.png", "long/02.png", "long/00.png_2", "x"]
