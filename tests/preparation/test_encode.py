# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Clips that are encoded."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import open_clip
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset


def test_encoded_clips_are_resized_resampled_and_without_metadata(prepare, videos, tmp_path):
    manifest = prepare(videos, tmp_path, mode="encode", clip_seconds=1, short_side=36, crf=10)
    for entry in manifest["videos"]:
        for clip in entry["clips"]:
            path = tmp_path / clip["item"]["image"]
            first, last = clip["source"]
            assert last - first + 1 == 20
            with av.open(str(path)) as container:
                assert "Doe" not in str({**container.metadata, **container.streams.video[0].metadata})
            with open_clip(path) as reader, open_clip(videos / entry["source"][0]) as original:
                info = reader.probe()
                assert (info.frames, info.fps, info.height, info.width) == (30, 30.0, 36, 48)
                frames = reader.read(range(30)).float()
                expected = original.read([first + number * 2 // 3 for number in range(30)]).float()
            expected = expected.unflatten(2, (36, 2)).unflatten(4, (48, 2)).mean((3, 5))
            assert (frames - expected).mean(0).abs().mean() < 4  # brightness: color has half the resolution
            assert b"Doe" not in path.read_bytes()


def test_encoding_keeps_rate_and_size_on_request(prepare, videos, tmp_path):
    prepare(videos, tmp_path, mode="encode", fps=None, short_side=None)
    with open_clip(tmp_path / "clips" / "3.mp4") as reader:
        info = reader.probe()
    assert (info.frames, info.fps, info.height, info.width) == (40, 20.0, 72, 96)


def test_borders_are_cut_off_and_zones_are_blanked(prepare, make_scene, write_frames, tmp_path):
    frames = []
    for shift in range(12):
        frame = np.full((144, 200, 3), 3, np.uint8)
        frame[40:112, 60:156] = make_scene(1, shift)
        frame[5:9, 5:40] = 255
        frames.append(frame)
    write_frames(tmp_path / "in" / "0.mp4", frames)
    prepare(
        tmp_path / "in", tmp_path / "out", mode="encode", short_side=None, border="crop", blank=(0.3, 0.27, 0.4, 0.4)
    )
    with open_clip(tmp_path / "out/clips/0.mp4") as reader:
        clip = reader.read(range(12)).float()
    assert abs(clip.shape[2] - 72) <= 4
    assert abs(clip.shape[3] - 96) <= 4
    assert clip[:, :, 4:14, 4:16].mean() < 8
    assert clip[:, :, 30:].mean() > 60


def test_what_is_outside_of_a_round_picture_is_blackened(prepare, make_scene, write_frames, tmp_path):
    y, x = np.mgrid[:160, :200]
    inside = (x - 100) ** 2 + (y - 80) ** 2 < 70**2
    frames = []
    for shift in range(8):
        picture = np.asarray(Image.fromarray(make_scene(2, shift)).resize((200, 160)))
        frame = np.where(inside[..., None], picture.clip(60), 0).astype(np.uint8)
        frame[14:18, 40:48] = 255  # text in the corner of the extent
        frames.append(frame)
    write_frames(tmp_path / "in" / "0.mp4", frames)
    for border, limit in (("crop", 100), ("mask", 12)):
        prepare(tmp_path / "in", tmp_path / border, mode="encode", short_side=None, border=border, crf=8)
        with open_clip(tmp_path / border / "clips/0.mp4") as reader:
            clip = reader.read(range(8)).float()
        corner = clip[:, :, :20, :20].amax()
        assert corner > limit if border == "crop" else corner < limit + 20
        assert clip[:, :, 60:80, 60:80].mean() > 50


def test_labels_a_frame_are_not_encoded_away(tmp_path, videos):
    labeled = [SourceVideo("a", videos / "0.mp4", frame_labels={"box": [[]] * 40})]
    with pytest.raises(ValueError, match="a: has masks or labels a frame"):
        prepare_dataset(SourceDataset("test set", "none"), labeled, videos, tmp_path / "out", workers=1, mode="encode")
