# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import combinations, product
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from skimage.feature import match_template

from endofm_monai.data import ClipReader, open_clip
from endofm_monai.preparation.encode import ContentArea, fit_content_area
from endofm_monai.preparation.index import frame_picture
from endofm_monai.visualize.page import Section, table, write_page

MAX_DISTANCE = 52  # bits in which the hashes of frames may differ that are looked at
MIN_LIKENESS = 0.65  # of one of the closest frames, for a pair of clips to be reported
_HASH_SIZE = 16
BITS = _HASH_SIZE**2  # whether a frame, brought to 17 x 16 pixels, gets brighter from each to the next on its right
SCALES = (1.0, 0.9, 0.8)  # shares of a frame's sides, in its middle, that are hashed, so that cropped copies are found
FLIPS = (Image.Image.copy, ImageOps.mirror, ImageOps.flip, lambda picture: ImageOps.flip(ImageOps.mirror(picture)))
_MIN_CONTRAST = 8.0  # next to black, white or blurred out frames have hashes made of noise, which match by chance
_SIDE = 128  # pixels
_SHORT = 128  # a clip of fewer frames is hashed frame by frame, as copies of a part may start at any of them
_PER_SECOND = 5.0  # frames of a longer one that are hashed

_COMPARED = 64  # pixels a side
_MARGIN = 10  # pixels of the first picture that may be missing in the second one, on each side
_STRETCHES = (0.84, 0.92, 1.0, 1.08, 1.17)  # of the second, for copies that are cropped or have another border
_MAX_STRETCH = 1.2
_BLUR = 6.4  # pixels: coarser structure, as a dark lumen in the middle, is alike in unrelated pictures
_BLOCK = 4096  # frames compared at a time
_LOOKED_AT = 3  # closest frames of a pair of clips, of which one has to be alike

_THUMBNAIL = 200  # pixels
_SHOWN = 500  # pairs
_HOW = (
    "Frames are found by perceptual hashes: 0 of 256 bits differ in equal frames, about 128 in unrelated ones. The "
    "closest ones are then laid over each other at several sizes: 1 is the correlation of equal pictures. Copies that "
    "are re-encoded, resized, mirrored, cut in time or cropped are found; rotated, strongly cropped or edited ones may "
    "not be. Look at each pair: neighbors in one examination may be as alike as copies."
)


@dataclass(frozen=True, eq=False)
class ClipHashes:
    """Perceptual hashes of frames of a clip."""

    clip: str  # what it is called in reports
    group: str  # set and section that it belongs to
    image: Any  # what `endofm_monai.data.open_clip` opens to see it
    area: ContentArea  # where the endoscope's picture is in its frames, brought to 128 x 128 pixels
    frames: np.ndarray  # int (N,), the frames that were hashed
    bits: np.ndarray  # uint8 (S, F, N, B / 8): for each of the scales and flips the B bits of each frame, packed


def hash_clip(clip: str, group: str, image: Any) -> ClipHashes:
    """Hash the frames of a clip that show something, of longer videos only some a second, inside the black border."""
    with open_clip(image) as reader:
        info = reader.probe()
        step = 1 if info.frames < _SHORT else max(1, round(info.fps / _PER_SECOND))
        smalls = _read_small(reader, range(0, info.frames, step))
    area = fit_content_area(np.max([*smalls.values()], (0, 3)))
    pictures = {frame: _inside(small, area) for frame, small in smalls.items()}
    shown = {frame: picture for frame, picture in pictures.items() if np.asarray(picture).std() >= _MIN_CONTRAST}
    hashes = [[[_hash(picture, scale, flip) for picture in shown.values()] for flip in FLIPS] for scale in SCALES]
    bits = np.array(hashes, bool).reshape(len(SCALES), len(FLIPS), len(shown), BITS)
    return ClipHashes(clip, group, image, area, np.array([*shown], int), np.packbits(bits, axis=-1))


def _read_small(reader: ClipReader, frames: Sequence[int]) -> dict[int, np.ndarray]:
    """Read frames, brought to one size whatever the copy's, so that borders are found at the same place."""
    return {
        index: np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((_SIDE, _SIDE), Image.Resampling.BOX))
        for index, frame in reader.stream(sorted({*frames}))
    }


def _inside(small: np.ndarray, area: ContentArea) -> Image.Image:
    """Take the endoscope's picture out of a frame, in gray; what is outside of it gets its mean."""
    gray = np.array(Image.fromarray(small).convert("L"))
    gray[~area.mask] = round(gray[area.mask].mean())
    return Image.fromarray(gray).crop(area.box)


def _hash(picture: Image.Image, scale: float, flip: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    left, top = (round(side * (1 - scale) / 2) for side in picture.size)
    middle = picture.crop((left, top, picture.width - left, picture.height - top))
    return imagehash.dhash(flip(middle), _HASH_SIZE).hash.ravel()


@dataclass(frozen=True)
class Match:
    """Two clips that may show the same."""

    first: ClipHashes
    second: ClipHashes
    pairs: tuple[tuple[int, int, int], ...]  # closest frames: bits in which they differ, frame of the first, and second
    frames: int  # number of frames of the first whose hashes are close to one of the second
    flip: int  # the second shows this mirror image, an index of `FLIPS`; 0 for none
    likeness: float = 0.0  # correlation of the most alike of the frames; 0 before it is known


def find_matches(clips: Sequence[ClipHashes], max_distance: int = MAX_DISTANCE, min_frames: int = 1) -> list[Match]:
    """Find the pairs of clips of different groups that have frames with close hashes, in no order.

    Close hashes differ in up to ``max_distance`` of 256 bits. A pair must have ``min_frames`` with such hashes, but at
    most half of the shorter clip's.
    """
    groups: dict[str, list[ClipHashes]] = defaultdict(list)
    for clip in clips:
        groups[clip.group].append(clip)
    best: dict[tuple[ClipHashes, ClipHashes], Match] = {}
    for name, other in combinations(sorted(groups), 2):
        for match in _compare(groups[name], groups[other], max_distance):
            shorter = min(len(match.first.frames), len(match.second.frames))
            key = match.first, match.second
            is_closest = key not in best or match.pairs[0] < best[key].pairs[0]
            if match.frames >= min(min_frames, max(1, shorter // 2)) and is_closest:
                best[key] = match
    return list(best.values())


def _compare(firsts: list[ClipHashes], seconds: list[ClipHashes], max_distance: int) -> Iterator[Match]:
    places, other_places = (
        [(clip, frame) for clip in clips for frame in clip.frames.tolist()] for clips in (firsts, seconds)
    )
    scales = [pair for pair in product(range(len(SCALES)), repeat=2) if 0 in pair]
    for flip in range(len(FLIPS)):
        found: dict[tuple[ClipHashes, ClipHashes], dict[tuple[int, int], int]] = defaultdict(dict)
        for scale, other in scales:
            for row, column, distance in _close(_signs(firsts, scale, 0), _signs(seconds, other, flip), max_distance):
                (one, frame), (two, other_frame) = places[row], other_places[column]
                closest = found[one, two]
                closest[frame, other_frame] = min(distance, closest.get((frame, other_frame), BITS))
        for (one, two), closest in found.items():
            nearest = sorted((distance, *pair) for pair, distance in closest.items())[:_LOOKED_AT]
            yield Match(one, two, tuple(nearest), len({frame for frame, _ in closest}), flip)


def _signs(clips: list[ClipHashes], scale: int, flip: int) -> np.ndarray:
    bits = np.unpackbits(np.concatenate([clip.bits[scale, flip] for clip in clips]), axis=-1)
    return np.where(bits, np.float32(1), np.float32(-1))


def _close(left: np.ndarray, right: np.ndarray, max_distance: int) -> Iterator[tuple[int, int, int]]:
    """Give the rows of two arrays of signs that differ in few of them, and in how many."""
    for start, other in product(range(0, len(left), _BLOCK), range(0, len(right), _BLOCK)):
        distances = (BITS - left[start : start + _BLOCK] @ right[other : other + _BLOCK].T) / 2
        for row, column in np.argwhere(distances <= max_distance).tolist():
            yield start + row, other + column, int(distances[row, column])


def confirm_match(match: Match) -> Match:
    """Look at the closest frames of a pair, as unrelated ones may have close hashes; the most alike come first."""
    _, frames, others = zip(*match.pairs, strict=True)
    with open_clip(match.first.image) as first, open_clip(match.second.image) as second:
        smalls, other_smalls = _read_small(first, frames), _read_small(second, others)
    likeness = []
    for _, frame, other in match.pairs:
        mirrored = FLIPS[match.flip](_inside(other_smalls[other], match.second.area))
        likeness.append(picture_likeness(_inside(smalls[frame], match.first.area), mirrored))
    best = int(np.argmax(likeness))
    pairs = (match.pairs[best], *match.pairs[:best], *match.pairs[best + 1 :])
    return replace(match, pairs=pairs, likeness=likeness[best])


def picture_likeness(first: Image.Image, second: Image.Image) -> float:
    """Give how alike gray pictures are: the correlation where the middle of one fits best in the other, at most 1."""
    middle = _details(first, _COMPARED, _COMPARED)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    stretches = [pair for pair in product(_STRETCHES, repeat=2) if max(pair) / min(pair) <= _MAX_STRETCH]
    wholes = (_details(second, round(_COMPARED * across), round(_COMPARED * down)) for across, down in stretches)
    return max(float(match_template(whole, middle).max()) for whole in wholes)


def _details(picture: Image.Image, width: int, height: int) -> np.ndarray:
    image = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32)
    return image - gaussian_filter(image, _BLUR)


def write_report(
    path: Path,
    groups: dict[str, int],  # number of clips of each set and section
    exact: Sequence[tuple[str, str, int]],  # pairs of clips with the same files, and how many
    matches: Sequence[Match],  # pairs of clips with frames that look alike, the surest ones first
    problems: Sequence[str],  # what could not be compared, and why
) -> None:
    """Write an HTML page with thumbnails of the pairs of clips that have frames in common; it needs no other file."""
    compared = ", ".join(f"{name}: {count}" for name, count in groups.items())
    summary = f"{len(exact)} pairs of clips share files, {len(matches)} have frames that look alike. Clips: {compared}."
    shown = f" The {_SHOWN} surest pairs are shown." if len(matches) > _SHOWN else ""
    same = [[escape(first), escape(second), files] for first, second, files in exact]
    sections = [
        Section("Clips", summary),
        Section("The same files", body=table(("clip", "is also", "files"), same)),
        Section("Frames that look alike", _HOW + shown, body="".join(map(_show, matches[:_SHOWN]))),
        Section("Not compared", body=table((), [[escape(problem)] for problem in problems or ["nothing"]])),
    ]
    write_page(path, "Leakage report", sections)


def _show(match: Match) -> str:
    """HTML of what is known about a pair of clips, and of their closest frames, side by side."""
    bits, *frames = match.pairs[0]
    known = f"likeness {match.likeness:.2f}, {bits} bits, {match.frames} frames" + ", mirrored" * bool(match.flip)
    cells = []
    for clip, frame in zip((match.first, match.second), frames, strict=True):
        picture, buffer = frame_picture(clip.image, frame), io.BytesIO()
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        picture.save(buffer, "JPEG", quality=80)
        data, name = base64.b64encode(buffer.getvalue()).decode(), escape(f"{clip.clip}, frame {frame}")
        cells.append(f'{name}<img src="data:image/jpeg;base64,{data}" alt="">')
    return f"<p>{known}</p>\n{table((), [cells])}\n"
