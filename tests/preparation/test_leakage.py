# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_sets import make_scene, write_frames

from endofm_monai.preparation.leakage import ClipHashes, Match, confirm_match, find_matches, hash_clip


def find(clips: list[ClipHashes]) -> list[Match]:
    return [match for match in map(confirm_match, find_matches(clips)) if match.likeness >= 0.65]


@pytest.fixture(scope="module")
def original() -> list[np.ndarray]:
    return [make_scene(50, shift) for shift in range(20)]


@pytest.fixture(scope="module")
def clips(original: Any, tmp_path_factory: Any) -> dict[str, ClipHashes]:
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
        "half the size": ([resize(frame, 48, 36) for frame in original], 20),
        "squeezed": ([resize(frame, 96, 96) for frame in original], 20),
        "mirrored": ([frame[:, ::-1] for frame in original], 20),
        "upside down": ([frame[::-1] for frame in original], 20),
        "cut": (original[11:16], 20),
        "framed": (framed, 20),
        "without a twentieth": ([frame[4:-4, 5:-5] for frame in original], 20),
        "without a tenth": ([frame[8:-8, 10:-10] for frame in original], 20),
        "without a corner": ([frame[8:, 10:] for frame in original], 20),
        "all of it": ([resize(frame[8:-8, -10:10:-1], 48, 36) for frame in original[11:16]], 30),
        **{f"unrelated {seed}": ([make_scene(seed, shift) for shift in range(20)], 20) for seed in range(4)},
    }
    folder = tmp_path_factory.mktemp("leakage")
    return {
        name: hash_clip(name, name, str(write_frames(folder / f"{name}.mp4", frames, crf=crf)))
        for name, (frames, crf) in videos.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "reencoded",
        "half the size",
        "squeezed",
        "cut",
        "framed",
        "without a twentieth",
        "without a tenth",
        "without a corner",
        "all of it",
    ],
)
def test_copies_are_found(clips, name):
    (match,) = find([clips["original"], clips[name]])
    assert match.flip == (name == "all of it")
    _, frame, second_frame = match.pairs[0]
    by_name = {match.first.clip: frame, match.second.clip: second_frame}
    tolerance = 5 if name == "without a corner" else 1  # the scene moves sideways, as the crop does
    assert abs(by_name["original"] - by_name[name] - (11 if name in ("cut", "all of it") else 0)) <= tolerance
    assert match.frames >= 2


@pytest.mark.parametrize(("name", "flip"), [("mirrored", 1), ("upside down", 2)])
def test_mirror_images_are_found(clips, name, flip):
    (match,) = find([clips["original"], clips[name]])
    assert match.flip == flip
    assert match.pairs[0][0] < 20
    assert match.likeness > 0.9


def test_unrelated_videos_are_not_reported(clips):
    unrelated = [hashes for name, hashes in clips.items() if "unrelated" in name] + [clips["original"]]
    assert find(unrelated) == []
    candidates = find_matches(unrelated, max_distance=100)  # they are told apart also where hashes are close by chance
    assert candidates
    assert max(confirm_match(match).likeness for match in candidates) < 0.65


def test_clips_of_one_group_are_not_compared(clips):
    same = [ClipHashes(**{**vars(clips[name]), "group": "one"}) for name in ("original", "reencoded")]
    assert find_matches(same) == []


def test_pairs_can_be_asked_to_have_several_frames_in_common(clips):
    cut = clips["cut"]
    one = ClipHashes(cut.clip, cut.group, cut.image, cut.area, cut.frames[:1], cut.bits[:, :, :1])
    assert len(find_matches([clips["original"], one], min_frames=3)) == 1  # its only frame
    assert find_matches([clips["original"], clips["unrelated 0"]], min_frames=3) == []


def test_frames_that_show_nothing_do_not_match(tmp_path):
    rng = np.random.default_rng(0)
    black = [rng.integers(0, 6, (72, 96, 3), dtype=np.uint8) for _ in range(4)]
    hashes = [hash_clip(name, name, str(write_frames(tmp_path / f"{name}.mp4", black))) for name in ("first", "second")]
    assert len(hashes[0].frames) == 0
    assert find_matches(hashes) == []
    assert find_matches([]) == []
