# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

from endofm_monai.inferers import BoxLinker, BoxTrack

HERE, MOVED, FAR = [10.0, 20.0, 40.0, 50.0], [12.0, 20.0, 42.0, 52.0], [60.0, 5.0, 75.0, 20.0]


def detections(*found):
    """Detections from pairs of box and class."""
    return {
        "box": torch.tensor([box for box, _ in found]).reshape(-1, 4),
        "label": torch.tensor([label for _, label in found], dtype=torch.long),
    }


def link_boxes(frames: list, **options: float) -> list[BoxTrack]:
    linker = BoxLinker(**options)
    for frame in frames:
        linker.push(frame)
    return linker.tracks


def test_links_follow_class_and_overlap():
    tracks = link_boxes([detections((HERE, 1)), detections((MOVED, 2), (MOVED, 1))])
    assert [(track.label, list(track.boxes)) for track in tracks] == [(1, [0, 1]), (2, [1])]
    assert tracks[0].boxes[1].tolist() == MOVED


def test_the_sum_of_overlaps_decides():
    # the first box overlaps both tracks, and its best one is all that the second box overlaps
    before = detections(([0.0, 0, 10, 10], 1), ([8.0, 0, 18, 10], 1))
    now = detections(([3.5, 0, 13.5, 10], 1), ([0.0, 0, 9.0, 10], 1))
    linker = BoxLinker(iou=0.3)
    assert linker.push(before) == [0, 1]
    assert linker.push(now) == [1, 0]


def test_a_polyp_may_be_missed_for_as_long_as_the_gap():
    frames = [detections((HERE, 1)), detections(), detections(), detections((MOVED, 1))]
    assert [list(track.boxes) for track in link_boxes(frames)] == [[0], [3]]
    assert [list(track.boxes) for track in link_boxes(frames, max_gap=1)] == [[0], [3]]
    assert [list(track.boxes) for track in link_boxes(frames, max_gap=2)] == [[0, 3]]


def test_boxes_of_little_overlap_begin_tracks():
    linker = BoxLinker(iou=0.5)
    assert linker.push(detections((HERE, 1), (FAR, 1))) == [0, 1]
    assert linker.push(detections((FAR, 1), ([30.0, 20, 60, 50], 1))) == [1, 2]
    assert linker.push(detections()) == []
    assert linker.push(detections((FAR, 1))) == [3]
