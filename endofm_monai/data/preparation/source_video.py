# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endofm_monai.data.clip_reader import ClipReadError

__all__ = ["SourceDataset", "SourceVideo", "read_videos"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class SourceDataset:
    """What is known about a dataset before it is prepared.

    Args:
        name: its name, which the folder's card tells more about.
        licence: what its owners permit, in a few words.
        labels: names of the classes in ``label``, ``box_label`` or ``frame_label``, by class index.
        published: the published totals: any of ``videos``, ``clips`` and ``frames``.
        mode: how to prepare it unless told otherwise, see :func:`endofm_monai.data.preparation.prepare_dataset`.
        clip_seconds: length of the clips to cut its videos into; ``None`` keeps videos whole.
    """

    name: str
    licence: str
    labels: Mapping[int, str] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    mode: str = "auto"
    clip_seconds: float | None = None


@dataclass(frozen=True)
class SourceVideo:
    """A video as its owners distribute it: what a dataset's layout says about it.

    Args:
        name: names the video in the set and in the files that are written: letters, digits, ``._-``, and ``/``.
        image: a video file, or the frame images in their order.
        section: list of the datalist that its clips go to: ``training``, ``validation`` or ``test``.
        fps: frames a second of frame images, which do not state it.
        labels: keys and values that each of its clips gets.
        frame_labels: keys with one value a frame, which are cut as the frames are.
        masks: one mask image a frame, for ``mask``.
        mask_label: class of what the masks show, for ``box`` and ``box_label`` around each of its regions.
        notes: what is wrong with its annotations, although it can be used.

    Raises:
        ValueError: when the name has other characters, or there are not as many masks or frame labels as frames.
    """

    name: str
    image: Path | Sequence[Path]
    section: str = "training"
    fps: float = 30.0
    labels: Mapping[str, Any] = field(default_factory=dict)
    frame_labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    masks: Sequence[Path] = ()
    mask_label: int | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a video's name needs letters, digits, '._-' and '/', found '{self.name}'")
        if not isinstance(self.image, Path):
            for key, values in {**self.frame_labels, **({"mask": self.masks} if self.masks else {})}.items():
                if len(values) != len(self.image):
                    raise ValueError(f"{self.name}: has {len(self.image)} frames, but {len(values)} of {key}")

    @property
    def frames(self) -> list[Path]:
        """The frame images; none for a video file."""
        return [] if isinstance(self.image, Path) else list(self.image)

    @property
    def files(self) -> list[Path]:
        """All files: the video or its frames, then the masks."""
        return [*(self.frames or [Path(str(self.image))]), *self.masks]


def read_videos(
    read: Callable[..., SourceVideo], arguments: Iterable[tuple[Any, ...]]
) -> tuple[list[SourceVideo], list[str]]:
    """Read the annotations of videos, one by one.

    Args:
        read: gives a video, or raises ``ClipReadError`` where its annotations cannot be used.
        arguments: the arguments for each video.

    Returns:
        the videos, and what is wrong with those that are left out.
    """
    videos, problems = [], []
    for each in arguments:
        try:
            videos.append(read(*each))
        except ClipReadError as error:
            problems.append(str(error))
    return videos, problems
