# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from endofm_monai.formats.annotations import Shape, Track, end_gaps, join_tracks, track_from_boxes, unknown_frames
from endofm_monai.inferers import BoxTrack

POLYGON = Shape("polygon", (0.0, 0.0, 4.0, 0.0, 4.0, 4.0))


def test_a_track_ends_after_its_last_box_and_bridges_gaps():
    boxes = {1: torch.tensor([0.0, 0, 10, 10]), 3: torch.tensor([4.0, 0, 14.123456, 10])}
    track = track_from_boxes(BoxTrack(2, boxes), 5, ("adenoma", "hyperplastic"), 8)
    assert (track.label, track.number, track.source) == ("hyperplastic", 5, "auto")
    assert [(frame, shape.outside) for frame, shape in track.shapes.items()] == [(1, False), (3, False), (4, True)]
    assert track.shapes[3].points == (4.0, 0.0, 14.12, 10.0)
    assert list(track.visible(8)) == [1, 2, 3]
    assert track.visible(8)[2].points == (2.0, 0.0, 12.06, 10.0)
    assert 4 not in track_from_boxes(BoxTrack(1, boxes), 0, ("adenoma",), 4).shapes  # the video ends with it


def test_polygons_are_outside_in_gaps():
    track = Track("polyp", end_gaps({0: POLYGON, 1: POLYGON, 4: POLYGON}, 6, bridge=True), 0)
    assert list(track.visible(6)) == [0, 1, 4]
    assert [frame for frame, shape in track.shapes.items() if shape.outside] == [2, 5]


def test_single_shapes_of_a_number_become_a_track(video_task, caplog):
    parts = [
        Track(
            "adenoma", {frame: Shape("box", (frame, 0.0, frame + 9.0, 9.0), attributes={"track": "7", "Paris": "Is"})}
        )
        for frame in (5, 4, 7)
    ]
    alone = Track("adenoma", {2: Shape("box", (0.0, 0.0, 5.0, 5.0))})
    joined = join_tracks(replace(video_task, tracks=[*video_task.tracks, *parts, alone]))
    assert joined.tracks[:2] == list(video_task.tracks)
    assert joined.tracks[2] == alone
    track = joined.tracks[3]
    assert track.number == 2
    assert list(track.visible(8)) == [4, 5, 6, 7]
    assert track.shapes[5].attributes == {"Paris": "Is"}
    assert "a: adds 1 boxes between those of one number in `track`" in caplog.text  # which nobody has seen in CVAT
    caplog.clear()
    assert join_tracks(video_task) == video_task
    assert not caplog.text
    images = [f"b/{number}.png" for number in range(8)]
    for task, where in (({}, "frame 5"), ({"start": 10}, "frame 15"), ({"images": images}, "b/5.png")):  # as in CVAT
        with pytest.raises(ValueError, match=f"a: {where} has two shapes of track 7"):
            join_tracks(replace(video_task, tracks=[*parts, parts[0]], **task))


def test_boxes_are_interpolated_between_key_frames_until_they_are_outside(video_task):
    visible = video_task.tracks[0].visible(8)
    assert list(visible) == [0, 1, 2, 3, 6, 7]
    assert visible[1].points == (12.0, 10.0, 22.0, 32.0)
    assert visible[3].points == visible[2].points  # nothing is known of where it goes when it leaves
    assert visible[3].occluded
    assert visible[7].points == (40.0, 10.0, 50.0, 30.0)  # the last one stays
    assert [frame for frame, shape in visible.items() if shape.keyframe] == [0, 2, 6]


def test_polygons_of_other_corners_are_not_guessed():
    shapes = {0: Shape("polygon", (0.0,) * 6), 2: Shape("polygon", (0.0,) * 8)}
    with pytest.raises(ValueError, match="another number of corners"):
        Track("polyp", shapes, 0).visible(3)
    assert list(Track("polyp", {0: shapes[0]}, None).visible(3)) == [0]


@pytest.mark.parametrize(
    ("listed", "outside", "is_complete", "unknown"),
    [
        ((1, 2, 3), False, True, {4, 5}),  # deleted frames at the end, too
        ((1, 2, 3), True, True, set()),
        ((1, 2, 5), False, True, {3, 4}),
        ((1, 5), False, False, set()),
        ((1, 3), False, False, set()),  # whose last one stays until the end
    ],
)
def test_frames_of_which_a_track_says_nothing(listed, outside, is_complete, unknown):
    shapes = {frame: Shape("box", (1, 2, 3, 4), outside=outside and frame == listed[-1]) for frame in listed}
    assert unknown_frames(Track("polyp", shapes, 0), is_complete, 6) == unknown
    assert unknown_frames(Track("polyp", {1: shapes[1]}), is_complete, 6) == set()
