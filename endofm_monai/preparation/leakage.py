# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import html
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from endofm_monai.data.readers.open_clip import open_clip
from endofm_monai.preparation.hashes import BITS, FLIPS, SCALES, ClipHashes, picture_likeness, read_pictures
from endofm_monai.utils import atomic_path

__all__ = ["Match", "confirm_match", "find_matches", "write_leakage_report"]

_BLOCK = 4096  # frames compared at a time
_LOOKED_AT = 3  # closest frames of a pair of clips, of which one has to be alike


@dataclass(frozen=True)
class Match:
    """Two clips that may show the same.

    Args:
        first: the one clip.
        second: the other one.
        pairs: the closest frames ``(distance, frame of the first, frame of the second)``, the closest first; the
            distance is the number of bits in which their hashes differ, of 256.
        frames: number of frames of the first whose hashes are close to one of the second.
        flip: the second shows this mirror image, an index of ``FLIPS``; 0 for none.
        likeness: correlation of the most alike of the frames; 0 before it is known.
    """

    first: ClipHashes
    second: ClipHashes
    pairs: tuple[tuple[int, int, int], ...]
    frames: int
    flip: int
    likeness: float = 0.0


def find_matches(clips: Sequence[ClipHashes], max_distance: int = 52, min_frames: int = 1) -> list[Match]:
    """Find the pairs of clips of different groups that have frames with close hashes.

    Args:
        clips: the hashed clips.
        max_distance: number of bits, of 256, in which the hashes of alike frames may differ.
        min_frames: number of frames that a pair must have in common, but at most half of the shorter clip's.

    Returns:
        for each pair of clips the flip with the closest frames, in no order.
    """
    groups: dict[str, list[ClipHashes]] = defaultdict(list)
    for clip in clips:
        groups[clip.group].append(clip)
    names = sorted(groups)
    best: dict[tuple[int, int], Match] = {}
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            for match in _compare(groups[name], groups[other], max_distance):
                shorter = min(len(match.first.frames), len(match.second.frames))
                key = id(match.first), id(match.second)
                if match.frames >= min(min_frames, max(1, shorter // 2)) and (
                    key not in best or match.pairs[0] < best[key].pairs[0]
                ):
                    best[key] = match
    return list(best.values())


def _compare(firsts: list[ClipHashes], seconds: list[ClipHashes], max_distance: int) -> Iterator[Match]:
    """Compare all frames of one group with all of another one."""
    owners = [np.repeat(np.arange(len(clips)), [len(clip.frames) for clip in clips]) for clips in (firsts, seconds)]
    places = [np.concatenate([np.arange(len(clip.frames)) for clip in clips]) for clips in (firsts, seconds)]
    for flip in range(len(FLIPS)):
        found: dict[tuple[int, int], dict[tuple[int, int], int]] = defaultdict(dict)
        for scale, other in [(0, each) for each in range(len(SCALES))] + [(each, 0) for each in range(1, len(SCALES))]:
            left, right = _signs(firsts, scale, 0), _signs(seconds, other, flip)
            for row, column, distance in _close(left, right, max_distance):
                pair = int(places[0][row]), int(places[1][column])
                closest = found[int(owners[0][row]), int(owners[1][column])]
                closest[pair] = min(distance, closest.get(pair, BITS))
        for (one, two), closest in found.items():
            first, second = firsts[one], seconds[two]
            pairs = sorted((distance, row, column) for (row, column), distance in closest.items())[:_LOOKED_AT]
            yield Match(
                first,
                second,
                tuple((bits, int(first.frames[row]), int(second.frames[column])) for bits, row, column in pairs),
                len({row for row, _ in closest}),
                flip,
            )


def _close(left: np.ndarray, right: np.ndarray, max_distance: int) -> Iterator[tuple[int, int, int]]:
    """Give the rows of two arrays of signs that differ in few of them, and in how many."""
    for start in range(0, len(left), _BLOCK):
        for other in range(0, len(right), _BLOCK):
            distances = (BITS - left[start : start + _BLOCK] @ right[other : other + _BLOCK].T) / 2
            rows, columns = np.nonzero(distances <= max_distance)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                yield start + row, other + column, int(distances[row, column])


def _signs(clips: list[ClipHashes], scale: int, flip: int) -> np.ndarray:
    bits = np.unpackbits(np.concatenate([clip.bits[scale, flip] for clip in clips]), axis=-1)
    return np.where(bits, np.float32(1), np.float32(-1))


def confirm_match(match: Match) -> Match:
    """Look at the closest frames of a pair of clips, since unrelated frames may have close hashes by chance.

    Args:
        match: a pair of clips.

    Returns:
        the match with its likeness, of the most alike frames, which come first.

    Raises:
        ClipReadError: when a clip can no longer be read.
    """
    firsts = read_pictures(match.first, [pair[1] for pair in match.pairs])
    seconds = read_pictures(match.second, [pair[2] for pair in match.pairs])
    flip = FLIPS[match.flip]
    flipped = [picture if flip is None else picture.transpose(flip) for picture in seconds]
    likeness = [picture_likeness(*pictures) for pictures in zip(firsts, flipped, strict=True)]
    best = int(np.argmax(likeness))
    pairs = (match.pairs[best], *match.pairs[:best], *match.pairs[best + 1 :])
    return Match(match.first, match.second, pairs, match.frames, match.flip, likeness[best])


_THUMBNAIL = 200  # pixels
_SHOWN = 500  # pairs
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Leakage report</title>
<style>body {{ font: 15px sans-serif; margin: 2em }}
td, th {{ padding: 4px 12px; text-align: left; vertical-align: top }}
img {{ display: block }}</style>
<h1>Leakage report</h1>
<p>{summary}</p>
<h2>The same files</h2>
<table><tr><th>clip<th>is also<th>files{exact}</table>
<h2>Frames that look alike</h2>
<p>Frames are found by perceptual hashes: 0 of 256 bits differ in equal frames, about 128 in unrelated ones. The closest
ones are then laid over each other at several sizes: 1 is the correlation of equal pictures. Copies that are re-encoded,
resized, mirrored, cut in time or cropped are found; rotated, strongly cropped or edited ones may not be. Look at each
pair: neighbors in one examination may be as alike as copies.</p>
<table><tr><th>clip<th>is like<th>likeness<th>bits<th>frames<th>mirrored{pairs}</table>
<h2>Not compared</h2>
<ul>{problems}</ul>
</html>
"""


def write_leakage_report(
    path: Path,
    groups: dict[str, int],
    exact: Sequence[tuple[str, str, int]],
    matches: Sequence[Match],
    problems: Sequence[str],
) -> None:
    """Write a page with thumbnails of the pairs of clips that have frames in common; it needs no other file.

    Args:
        path: the HTML file.
        groups: number of clips of each set and section.
        exact: pairs of clips with the same files, and how many.
        matches: pairs of clips with frames that look alike, the surest ones first.
        problems: what could not be compared, and why.
    """
    compared = ", ".join(f"{name}: {count}" for name, count in groups.items())
    summary = f"{len(exact)} pairs of clips share files, {len(matches)} have frames that look alike. Clips: {compared}."
    if len(matches) > _SHOWN:
        summary += f" The {_SHOWN} surest pairs are shown."
    page = _PAGE.format(
        summary=html.escape(summary),
        exact="".join(_row(first, second, str(files)) for first, second, files in exact),
        pairs="".join(_pair(match) for match in matches[:_SHOWN]),
        problems="".join(f"<li>{html.escape(problem)}" for problem in problems) or "<li>nothing",
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _pair(match: Match) -> str:
    bits, frame, second_frame = match.pairs[0]
    numbers = f"{match.likeness:.2f}", str(bits), str(match.frames), "yes" if match.flip else ""
    names = _row(f"{match.first.clip}, frame {frame}", f"{match.second.clip}, frame {second_frame}", *numbers)
    pictures = _thumbnail(match.first.image, frame), _thumbnail(match.second.image, second_frame)
    return names + "<tr>" + "".join(f'<td><img src="data:image/jpeg;base64,{picture}" alt="">' for picture in pictures)


def _row(*cells: str) -> str:
    return "\n<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells)


def _thumbnail(image: Any, frame: int) -> str:
    with open_clip(image) as reader:
        picture = Image.fromarray(reader.read([frame])[:, 0].permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
