# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.content_area import ContentArea, fit_content_area

__all__ = ["ClipHashes", "Match", "find_matches", "hash_clip"]

_HASH_SIZE = 16  # a hash has 16 x 16 bits: the lowest frequencies of the frame's brightness
_BLOCK = 4096  # frames compared at a time
# Frames that are next to black, white or blurred out have hashes made of noise, which match by chance.
_MIN_CONTRAST = 8.0
_FLIPS = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)
_SIDE = 128  # pixels
_CHUNK = 32  # frames read at a time
_SHORT = 128  # a clip of fewer frames is hashed frame by frame, as copies of a part may start at any of them


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
        per_second: frames to hash a second of a longer video.

    Returns:
        the hashes of all frames that show something.

    Raises:
        ClipReadError: when the clip cannot be read.
    """
    with open_clip(image) as reader:
        info = reader.probe()
        step = 1 if info.frames < _SHORT else max(1, round(info.fps / per_second))
        frames = list(range(0, info.frames, step))
        pictures = [
            _small(frame)
            for start in range(0, len(frames), _CHUNK)
            for frame in reader.read(frames[start : start + _CHUNK]).permute(1, 2, 3, 0).numpy()
        ]
    area = fit_content_area(np.max(pictures, (0, 3)))
    grays = [_inside(picture, area) for picture in pictures]
    shown = [place for place, gray in enumerate(grays) if np.asarray(gray).std() >= _MIN_CONTRAST]
    hashes = [
        [imagehash.phash(view, _HASH_SIZE).hash.ravel() for view in (gray, *(gray.transpose(flip) for flip in _FLIPS))]
        for gray in (grays[place] for place in shown)
    ]
    bits = np.array(hashes, bool).reshape(len(shown), 1 + len(_FLIPS), _HASH_SIZE**2).swapaxes(0, 1)
    return ClipHashes(clip, group, image, np.array(frames)[shown], bits[0], bits[1:])


def _small(frame: np.ndarray) -> np.ndarray:
    """Bring a frame ``(H, W, 3)`` to one size, whatever the copy's, so that its border is found at the same place."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _inside(picture: np.ndarray, area: ContentArea) -> Image.Image:
    """Take the endoscope's picture out of a frame, in gray; what is outside of it gets its mean."""
    gray = np.asarray(Image.fromarray(picture).convert("L")).copy()
    gray[~area.mask] = round(gray[area.mask].mean())
    return Image.fromarray(gray).crop(area.box)


def find_matches(clips: Sequence[ClipHashes], max_distance: int = 44, min_frames: int = 1) -> list[Match]:
    """Find the pairs of clips of different groups that have frames in common.

    Args:
        clips: the hashed clips.
        max_distance: number of bits, of 256, in which the hashes of alike frames may differ.
        min_frames: number of frames that a pair must have in common, but at most half of the shorter clip's.

    Returns:
        the matches, the surest ones first.
    """
    clips = sorted(clips, key=lambda clip: clip.group)  # so that pairs of groups are above the diagonal
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
    mirrored = [_signs(np.concatenate([clip.mirrored[flip] for clip in clips])) for flip in range(len(_FLIPS))]
    for start in range(0, len(bits), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for other in range(start, len(bits), _BLOCK):
            columns = slice(other, other + _BLOCK)
            yield rows, columns, False, _count_different(bits[rows], bits[columns])
            flips = [_count_different(bits[rows], each[columns]) for each in mirrored]
            yield rows, columns, True, np.minimum.reduce(flips)


def _signs(bits: np.ndarray) -> np.ndarray:
    return np.where(bits, np.float32(1), np.float32(-1))


def _count_different(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first.shape[1] - first @ second.T) / 2
