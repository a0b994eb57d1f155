# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from endofm_monai.formats.annotations import Annotations, Shape, Tag, Track
from endofm_monai.formats.masks import mask_points

WIDTH, HEIGHT, LABELS = 96, 64, ("adenoma", "hyperplastic <&>")
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("C",), exclude_characters="\x85\u2028\u2029"), max_size=6
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["size", "Paris"]), TEXT, max_size=2)
SIDE = st.decimals(-5, 99, places=2).map(float) | st.floats(-5, 99)


@st.composite
def shapes(draw: Any, kind: str, corners: int = 4) -> Shape:
    if kind == "box":
        x, y, width, height = (draw(SIDE) for _ in range(4))
        points = (x, y, x + 1 + abs(width), y + 1 + abs(height))
    elif kind == "polygon":
        points = tuple(draw(SIDE) for _ in range(2 * corners))
    else:
        rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        mask = np.zeros((HEIGHT, WIDTH), bool)
        bits = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
        mask[3 : 3 + rows, 5 : 5 + columns] = np.reshape(bits, (rows, columns))
        mask[3, 5] = True
        points = tuple(mask_points(mask))
    flags = {"occluded": draw(st.booleans()), "z_order": draw(st.integers(-2, 2)), "attributes": draw(ATTRIBUTES)}
    return Shape(kind, points, **flags)


@st.composite
def tracks(draw: Any, number: int, frames: int) -> Track:
    kind, corners = draw(st.sampled_from(["box", "polygon"])), draw(st.integers(3, 5))
    numbers = sorted(draw(st.sets(st.integers(0, frames - 1), min_size=1, max_size=4)))
    listed = {}
    for place, frame in enumerate(numbers):
        outside = place > 0 and draw(st.booleans())
        shape = draw(shapes(kind, corners))
        listed[frame] = Shape(**{**vars(shape), "outside": outside})
    head = (draw(st.sampled_from(LABELS)), listed, number)
    return Track(*head, draw(st.integers(0, 2)), draw(st.sampled_from(["manual", "auto"])))


@st.composite
def tasks(draw: Any, images: bool = False) -> Annotations:
    frames = draw(st.integers(1, 7))
    tracked = [] if images else [draw(tracks(number, frames)) for number in range(draw(st.integers(0, 3)))]
    singles = [
        Track(
            draw(st.sampled_from(LABELS)),
            {frame: draw(shapes(draw(st.sampled_from(["box", "polygon", "mask"]))))},
            None,
            draw(st.integers(0, 2)),
            draw(st.sampled_from(["manual", "auto"])),
        )
        for frame in sorted(draw(st.lists(st.integers(0, frames - 1), max_size=4)))
    ]
    tag = st.builds(Tag, st.sampled_from(["normal", "abnormal"]), ATTRIBUTES, st.sampled_from(["manual", "auto"]))
    tags = draw(st.dictionaries(st.integers(0, frames - 1), st.lists(tag, min_size=1, max_size=2), max_size=3))
    return Annotations(
        name="colon/a.mp4",
        frames=frames,
        width=WIDTH,
        height=HEIGHT,
        labels=[*LABELS, *sorted({tag.label for entries in tags.values() for tag in entries})],
        tracks=[*tracked, *singles],
        tags=tags,
        images=[f"b/{index}.png" for index in range(frames)] if images else [],
        source="" if images else "a.mp4",
        start=0 if images else draw(st.integers(0, 5)),
    )


@pytest.fixture
def video_task() -> Annotations:
    """A polyp that moves, is hidden in frame 4, and comes back in frame 6 of eight frames."""
    moving = {
        0: Shape("box", (10.0, 10.0, 20.0, 30.0)),
        2: Shape("box", (14.0, 10.0, 24.0, 34.0), occluded=True),
        4: Shape("box", (14.0, 10.0, 24.0, 34.0), outside=True),
        6: Shape("box", (40.0, 10.0, 50.0, 30.0)),
    }
    polygon = {1: Shape("polygon", (5.0, 5.0, 15.0, 5.0, 15.0, 20.0)), 2: Shape("polygon", (5.0,) * 6, outside=True)}
    tracked = [Track("adenoma", moving, 0), Track("hyperplastic", polygon, 1, source="auto")]
    tags = {0: [Tag("normal")], 3: [Tag("abnormal")]}
    return Annotations("a", 8, WIDTH, HEIGHT, ["adenoma", "hyperplastic"], tracked, tags, source="a.mp4")
