# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

SECTIONS = ("training", "validation", "test")  # of a datalist
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class SourceDataset:
    """What is known about a dataset before it is prepared; its folder's card tells more."""

    name: str
    licence: str  # what its owners permit, in a few words
    labels: Mapping[int, str] = field(default_factory=dict)  # names of the classes in ``label`` and ``box_label``
    published: Mapping[str, int] = field(default_factory=dict)  # totals: any of ``videos``, ``clips`` and ``frames``
    mode: str = "auto"  # unless asked for otherwise, see `PreparationSettings`
    clip_seconds: float | None = None  # likewise


@dataclass(frozen=True)
class SourceVideo:
    """A video as its owners distribute it: what a dataset's layout says about it."""

    name: str  # in the set and in the files that are written: letters, digits, ``._-``, and ``/``
    image: Path | Sequence[Path]  # a video file, or the frame images in their order
    section: str = "training"  # list of the datalist that its clips go to, one of `SECTIONS`
    fps: float = 30.0  # of frame images, which do not state it
    labels: Mapping[str, Any] = field(default_factory=dict)  # what each of its clips gets
    frame_labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # one value a frame, cut as the frames are
    masks: Sequence[Path] = ()  # one mask image a frame, for ``mask``
    mask_label: int | None = None  # class of the masks' regions, for ``box`` and ``box_label`` around each of them
    notes: Sequence[str] = ()  # what is wrong with its annotations, although it can be used

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a video's name needs letters, digits, '._-' and '/', found '{self.name}'")
        for key, values in {**self.frame_labels, **({"mask": self.masks} if self.masks else {})}.items():
            if not isinstance(self.image, Path) and len(values) != len(self.image):
                raise ValueError(f"{self.name}: has {len(self.image)} frames, but {len(values)} of {key}")

    @property
    def frames(self) -> list[Path]:
        """The frame images; none for a video file."""
        return [] if isinstance(self.image, Path) else list(self.image)

    @property
    def files(self) -> list[Path]:
        """All files: the video or its frames, then the masks."""
        return [*([self.image] if isinstance(self.image, Path) else self.image), *self.masks]


@dataclass(frozen=True)
class PreparationSettings:
    """How videos are made into clips.

    In the mode ``"index"`` the sources are left where they are, and (file, first frame, last frame) is listed, which
    takes seconds and no disk; ``"encode"`` writes each clip as an H.264 file; ``"auto"`` takes index for each video
    whose frames can be reached quickly, see :func:`choose_mode`, else encode; ``"copy"`` copies frame images and writes
    clean masks, so that the output stands for itself. Encoding can cut off what the endoscope leaves black around its
    picture (``"crop"``), and also blacken what remains outside, as text in the corners (``"mask"``).
    """

    mode: str = "auto"
    clip_seconds: float | None = None  # length of the clips; None keeps videos whole
    remainder: str = "merge"  # what happens to the frames left over, see `clip_ranges`
    fps: float | None = 30.0  # of encoded clips: frames are repeated or left out; None: the source's highest
    short_side: int | None = 256  # of encoded clips in pixels; None keeps the source's
    crf: int = 18  # H.264's constant rate factor: 0 is lossless, 18 hardly visible, 51 worst
    border: str = "keep"
    blank: tuple[tuple[float, float, float, float], ...] = ()  # zones x1, y1, x2, y2 to encode black, as fractions

    def __post_init__(self) -> None:
        choices = {"mode": ("auto", "index", "copy", "encode"), "border": ("keep", "crop", "mask")}
        for name, allowed in {**choices, "remainder": ("merge", "keep", "drop")}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {getattr(self, name)}")
        for name in ("clip_seconds", "fps", "short_side"):
            number = getattr(self, name)
            if number is not None and not (isinstance(number, (int, float)) and number > 0):
                raise ValueError(f"{name}: expected a positive number or None, found {number}")
        if self.crf not in range(52):
            raise ValueError(f"crf: expected a whole number from 0 to 51, found {self.crf}")
        if np.ndim(self.blank) == 1 and len(self.blank) > 0:
            object.__setattr__(self, "blank", (self.blank,))  # one zone
        for zone in self.blank if isinstance(self.blank, (tuple, list)) else [self.blank]:
            if np.shape(zone) != (4,) or not (0 <= zone[0] < zone[2] <= 1 and 0 <= zone[1] < zone[3] <= 1):
                raise ValueError(f"blank: expected x1,y1,x2,y2 as fractions of width and height, found {zone}")
        of_encoding = ("border", "blank", *(("fps", "short_side", "crf") if self.mode != "auto" else ()))
        changed = [
            each.name for each in fields(self) if each.name in of_encoding and getattr(self, each.name) != each.default
        ]
        if self.mode != "encode" and changed:
            raise ValueError(f"{', '.join(changed)}: need mode=encode, found mode={self.mode}")
