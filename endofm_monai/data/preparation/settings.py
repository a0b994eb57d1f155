# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PreparationSettings"]

_MODES = ("auto", "index", "copy", "encode")
_BORDERS = ("keep", "crop", "mask")


@dataclass(frozen=True)
class PreparationSettings:
    """How videos are made into clips.

    Args:
        mode: ``"index"`` leaves the sources where they are and lists (file, first frame, last frame), which takes
            seconds and no disk; ``"encode"`` writes each clip as an H.264 file; ``"auto"`` takes index for each video
            whose frames can be reached quickly, see :func:`endofm_monai.data.preparation.choose_mode`, else encode;
            ``"copy"`` copies frame images and writes clean masks, so that the output stands for itself.
        clip_seconds: length of the clips; ``None`` keeps videos whole.
        remainder: what happens to the frames left over, see :func:`endofm_monai.data.preparation.clip_ranges`.
        fps: frames a second of encoded clips: frames are repeated or left out; ``None`` keeps the source's.
        short_side: short side of encoded clips in pixels; ``None`` keeps the source's.
        crf: quality of encoded clips, H.264's constant rate factor: 0 is lossless, 18 hardly visible, 51 worst.
        border: what encoding does with what the endoscope leaves black around its picture: ``"keep"`` it, ``"crop"``
            to the picture's extent, or crop and also ``"mask"`` what remains outside, as text in the corners.
        blank: zones ``(x1, y1, x2, y2)`` to paint black when encoding, as fractions of the source's width and height.

    Raises:
        ValueError: when an argument is out of its range; the message names it.
    """

    mode: str = "auto"
    clip_seconds: float | None = None
    remainder: str = "merge"
    fps: float | None = 30.0
    short_side: int | None = 256
    crf: int = 18
    border: str = "keep"
    blank: tuple[tuple[float, float, float, float], ...] = ()

    def __post_init__(self) -> None:
        for argument, value, allowed in (
            ("mode", self.mode, _MODES),
            ("border", self.border, _BORDERS),
            ("remainder", self.remainder, ("merge", "keep", "drop")),
        ):
            if value not in allowed:
                raise ValueError(f"{argument}: expected one of {', '.join(allowed)}, found {value}")
        for name, number in (("clip_seconds", self.clip_seconds), ("fps", self.fps), ("short_side", self.short_side)):
            if number is not None and not number > 0:
                raise ValueError(f"{name}: expected a positive number or None, found {number}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf: expected 0 to 51, found {self.crf}")
        if self.blank and not isinstance(self.blank[0], (tuple, list)):
            object.__setattr__(self, "blank", (self.blank,))  # one zone
        for zone in self.blank:
            if len(zone) != 4 or not (0 <= zone[0] < zone[2] <= 1 and 0 <= zone[1] < zone[3] <= 1):
                raise ValueError(f"blank: expected x1,y1,x2,y2 as fractions of width and height, found {zone}")
        if self.mode != "encode" and (self.border != "keep" or self.blank):
            raise ValueError(f"border, blank: need mode=encode, found mode={self.mode}")
