# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from endofm_monai.data.preparation.leakage import ClipHashes, find_matches, hash_clip


@pytest.fixture(scope="module")
def original(make_scene: Any) -> list[np.ndarray]:
    return [make_scene(50, shift) for shift in range(20)]


@pytest.fixture(scope="module")
def clips(original: Any, make_scene: Any, write_frames: Any, tmp_path_factory: Any) -> dict[str, ClipHashes]:
    """Hashes of a video, of copies of it, and of unrelated ones."""

    def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))

    framed = []
    for frame in original:
        framed.append(np.full((120, 160, 3), 4, np.uint8))
        framed[-1][30:102, 20:116] = frame
    videos: dict[str, tuple[list[np.ndarray], int]] = {
        "original": (original, 20),
        "reencoded": (original, 36),
        "resized": ([resize(frame, 64, 48) for frame in original], 20),
        "squeezed": ([resize(frame, 96, 96) for frame in original], 20),
        "mirrored": ([frame[:, ::-1] for frame in original], 20),
        "upside down": ([frame[::-1] for frame in original], 20),
        "cut": (original[11:16], 20),
        "framed": (framed, 20),
        "cropped": ([frame[2:-2, 2:-2] for frame in original], 20),
        **{f"unrelated {seed}": ([make_scene(seed, shift) for shift in range(20)], 20) for seed in range(6)},
    }
    folder = tmp_path_factory.mktemp("leakage")
    return {
        name: hash_clip(name, name, str(write_frames(folder / f"{name}.mp4", frames, crf=crf)))
        for name, (frames, crf) in videos.items()
    }


@pytest.mark.parametrize("name", ["reencoded", "resized", "squeezed", "cut", "framed", "cropped"])
def test_copies_are_found(clips, name):
    (match,) = find_matches([clips["original"], clips[name]])
    assert not match.is_mirrored
    by_name = {match.first.clip: match.frame, match.second.clip: match.second_frame}
    assert abs(by_name["original"] - by_name[name] - (11 if name == "cut" else 0)) <= 1
    assert match.frames >= 5


@pytest.mark.parametrize("name", ["mirrored", "upside down"])
def test_mirror_images_are_found(clips, name):
    (match,) = find_matches([clips["original"], clips[name]])
    assert match.is_mirrored
    assert match.distance < 20


def test_unrelated_videos_are_not_reported(clips):
    assert find_matches([hashes for name, hashes in clips.items() if "unrelated" in name] + [clips["original"]]) == []


def test_clips_of_one_group_are_not_compared(clips):
    same = [ClipHashes(**{**vars(clips[name]), "group": "one"}) for name in ("original", "reencoded")]
    assert find_matches(same) == []


def test_pairs_can_be_asked_to_have_several_frames_in_common(clips):
    cut = clips["cut"]
    one = ClipHashes(cut.clip, cut.group, cut.image, cut.frames[:1], cut.bits[:1], cut.mirrored[:, :1])
    assert len(find_matches([clips["original"], one], min_frames=3)) == 1  # its only frame
    assert find_matches([clips["original"], clips["unrelated 0"]], min_frames=3) == []


def test_frames_that_show_nothing_do_not_match(write_frames, tmp_path):
    rng = np.random.default_rng(0)
    black = [rng.integers(0, 6, (72, 96, 3), dtype=np.uint8) for _ in range(4)]
    hashes = [hash_clip(name, name, str(write_frames(tmp_path / f"{name}.mp4", black))) for name in ("first", "second")]
    assert len(hashes[0].frames) == 0
    assert find_matches(hashes) == []
    assert find_matches([]) == []
