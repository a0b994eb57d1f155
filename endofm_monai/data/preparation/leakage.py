# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.content_area import find_content_area

__all__ = ["ClipHashes", "Match", "find_matches", "hash_clip"]

_HASH_SIZE = 16  # a hash has 16 x 16 bits: the lowest frequencies of the frame's brightness
_BLOCK = 4096  # frames compared at a time
# Frames that are next to black, white or blurred out have hashes made of noise, which match by chance.
_MIN_CONTRAST = 8.0


@dataclass(frozen=True)
class ClipHashes:
    """Perceptual hashes of frames of a clip.

    Args:
        clip: what the clip is called in reports.
        group: set and section that it belongs to.
        image: what to open to see it.
        frames: int array ``(N,)``, the frames that were hashed.
        bits: bool array ``(N, 256)``, their hashes.
        mirrored: bool array ``(3, N, 256)``, the hashes of the frames flipped left to right, top to bottom, and both.
    """

    clip: str
    group: str
    image: Any
    frames: np.ndarray
    bits: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class Match:
    """Two clips that show the same.

    Args:
        first: the one clip.
        second: the other one.
        frame: a frame of the first, the most alike one.
        second_frame: the frame of the second that is like it.
        distance: number of bits in which their hashes differ, of 256.
        frames: number of frames of the first that are like one of the second.
        is_mirrored: the second shows a mirror image.
    """

    first: ClipHashes
    second: ClipHashes
    frame: int
    second_frame: int
    distance: int
    frames: int
    is_mirrored: bool


def hash_clip(clip: str, group: str, image: Any, per_second: float = 5.0) -> ClipHashes:
    """Compute perceptual hashes of frames of a clip, inside of the endoscope's black border.

    Args:
        clip: what to call it.
        group: set and section that it belongs to.
        image: what :func:`endofm_monai.data.open_clip` opens.
        per_second: frames to hash a second of video; all of a shorter list of frame images.

    Returns:
        the hashes of all frames that show something.

    Raises:
        ClipReadError: when the clip cannot be read.
    """
    frames, hashes = [], []
    with open_clip(image) as reader:
        info = reader.probe()
        left, top, right, bottom = find_content_area(reader).box
        step = 1 if isinstance(image, list) and info.frames < 64 else max(1, round(info.fps / per_second))
        for index in range(0, info.frames, step):
            frame = reader.read([index])[:, 0, top:bottom, left:right].permute(1, 2, 0).numpy()
            gray = Image.fromarray(frame).convert("L")
            if np.asarray(gray).std() < _MIN_CONTRAST:
                continue
            views = [
                gray,
                *(
                    gray.transpose(flip)
                    for flip in (
                        Image.Transpose.FLIP_LEFT_RIGHT,
                        Image.Transpose.FLIP_TOP_BOTTOM,
                        Image.Transpose.ROTATE_180,
                    )
                ),
            ]
            hashes.append([imagehash.phash(view, _HASH_SIZE).hash.ravel() for view in views])
            frames.append(index)
    bits = np.array(hashes, bool).reshape(len(frames), 4, _HASH_SIZE**2).swapaxes(0, 1)
    return ClipHashes(clip, group, image, np.array(frames, int), bits[0], bits[1:])


def find_matches(clips: Sequence[ClipHashes], max_distance: int = 48, min_frames: int = 1) -> list[Match]:
    """Find the pairs of clips of different groups that have frames in common.

    Args:
        clips: the hashed clips.
        max_distance: number of bits, of 256, in which the hashes of alike frames may differ.
        min_frames: number of frames that a pair must have in common, but at most half of the shorter clip's.

    Returns:
        the matches, the surest ones first.
    """
    owners = np.repeat(np.arange(len(clips)), [len(clip.frames) for clip in clips])
    groups = {name: number for number, name in enumerate(sorted({clip.group for clip in clips}))}
    group_of = np.array([groups[clip.group] for clip in clips])[owners]
    place = np.concatenate([np.arange(len(clip.frames)) for clip in clips]) if clips else np.array([], int)
    bits = _signs(np.concatenate([clip.bits for clip in clips])) if clips else np.zeros((0, 1))

    pairs: dict[tuple[int, int, bool], list[tuple[int, int, int]]] = defaultdict(list)
    for rows, columns, is_mirrored, distances in _distances(clips, bits):
        close = (distances <= max_distance) & (group_of[rows][:, None] < group_of[columns][None])
        for row, column in zip(*np.nonzero(close), strict=True):
            key = int(owners[rows][row]), int(owners[columns][column]), is_mirrored
            pairs[key].append((int(distances[row, column]), int(place[rows][row]), int(place[columns][column])))

    matches = []
    for (first, second, is_mirrored), found in pairs.items():
        alike = len({row for _, row, _ in found})
        shorter = min(len(clips[first].frames), len(clips[second].frames))
        if alike >= min(min_frames, max(1, shorter // 2)):
            distance, row, column = min(found)
            frames = int(clips[first].frames[row]), int(clips[second].frames[column])
            matches.append(Match(clips[first], clips[second], *frames, distance, alike, is_mirrored))
    return sorted(matches, key=lambda match: (match.distance, -match.frames, match.first.clip, match.second.clip))


def _distances(clips: Sequence[ClipHashes], bits: np.ndarray) -> Iterator[tuple[slice, slice, bool, np.ndarray]]:
    """Compare all frames with all, block by block, and with the closest of their mirror images.

    Yields:
        the rows, the columns, whether the columns are mirrored, and the number of different bits.
    """
    if not clips:
        return
    mirrored = [_signs(np.concatenate([clip.mirrored[flip] for clip in clips])) for flip in range(3)]
    for start in range(0, len(bits), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for other in range(0, len(bits), _BLOCK):
            columns = slice(other, other + _BLOCK)
            yield rows, columns, False, _count_different(bits[rows], bits[columns])
            flips = [_count_different(bits[rows], each[columns]) for each in mirrored]
            yield rows, columns, True, np.minimum.reduce(flips)


def _signs(bits: np.ndarray) -> np.ndarray:
    return np.where(bits, np.float32(1), np.float32(-1))


def _count_different(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first.shape[1] - first @ second.T) / 2
