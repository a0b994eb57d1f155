# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from endofm_monai.data.readers.base import ClipReadError
from endofm_monai.data.readers.paths import frame_images, natural_key

__all__ = [
    "FrameBoxes",
    "PreparationSettings",
    "SourceDataset",
    "SourceVideo",
    "check_layout",
    "read_boxed_video",
    "read_videos",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class SourceDataset:
    """What is known about a dataset before it is prepared.

    Args:
        name: its name, which the folder's card tells more about.
        licence: what its owners permit, in a few words.
        labels: names of the classes in ``label``, ``box_label`` or ``frame_label``, by class index.
        published: the published totals: any of ``videos``, ``clips`` and ``frames``.
        mode: how to prepare it unless told otherwise, see :func:`endofm_monai.preparation.prepare_dataset`.
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


_MODES = ("auto", "index", "copy", "encode")
_BORDERS = ("keep", "crop", "mask")


@dataclass(frozen=True)
class PreparationSettings:
    """How videos are made into clips.

    Args:
        mode: ``"index"`` leaves the sources where they are and lists (file, first frame, last frame), which takes
            seconds and no disk; ``"encode"`` writes each clip as an H.264 file; ``"auto"`` takes index for each video
            whose frames can be reached quickly, see :func:`endofm_monai.preparation.choose_mode`, else encode;
            ``"copy"`` copies frame images and writes clean masks, so that the output stands for itself.
        clip_seconds: length of the clips; ``None`` keeps videos whole.
        remainder: what happens to the frames left over, see :func:`endofm_monai.preparation.clip_ranges`.
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


# What a folder holds that no other dataset's folder does, as patterns that must all match; several for several forms.
_SIGNATURES: dict[str, list[tuple[str, ...]]] = {
    "CVC-ClinicDB": [("Original/*.*", "Ground Truth/*.*")],
    "LDPolypVideo": [
        ("TrainValid/Images/*", "TrainValid/Annotations/*"),
        ("Test/Images/*", "Test/Annotations/*"),
        ("videos with* polyps/*",),
    ],
    "PolypDiag": [("videos/*", "splits/train.txt", "splits/val.txt")],
    "KUMC": [("train2019/Image/*", "train2019/Annotation/*"), ("val2019/Image/*", "val2019/Annotation/*")],
    "Kvasir-SEG": [("images/*.*", "masks/*.*", "kavsir_bboxes.json")],
    "SUN-SEG": [("TrainDataset/Frame/*", "TrainDataset/GT/*"), ("TestEasyDataset/*",), ("SUN-Negative/*",)],
    "HyperKvasir": [("labeled-videos/*",), ("unlabeled-videos/*",), ("labeled-images/*",), ("unlabeled-images/*",)],
    "Kvasir-Capsule": [("*labelled_videos/*",), ("*kvasir-capsule*videos*/*",), ("labelled_images/*",)],
    "CholecT45": [("data/VID*/*", "triplet/VID*.txt")],
    "PolypGen": [("data_C1/images_C1/*",), ("sequenceData/positive/*",), ("sequenceData/negativeOnly/*",)],
    "Colonoscopic": [("*[Aa]denoma*/**/*.*", "*[Hh]yperplas*/**/*.*"), ("**/*[Aa]denoma*.*", "**/*[Hh]yperplas*.*")],
}


def check_layout(name: str, source: str) -> Path:
    """Check that a folder looks like a dataset's.

    Args:
        name: the dataset.
        source: the folder with its files; or one that holds nothing but this folder.

    Returns:
        the folder in which the dataset's layout begins.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it does not look like the dataset's: the message says what is missing, and which dataset's it
            looks like.
    """
    root = Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: is not an existing folder")
    for folder in [root, *_only_folder(root)]:
        if _looks_like(name, folder):
            return folder
    missing = min(([pattern for pattern in form if not any(root.glob(pattern))] for form in _SIGNATURES[name]), key=len)
    others = [other for other in _SIGNATURES if _looks_like(other, root)]
    guess = f"; it looks like {' or '.join(others)}" if others else ""
    raise ValueError(f"{root}: is not {name} as its card describes it, {' and '.join(missing)} missing{guess}")


def _looks_like(name: str, folder: Path) -> bool:
    return any(all(any(folder.glob(pattern)) for pattern in patterns) for patterns in _SIGNATURES[name])


def _only_folder(root: Path) -> list[Path]:
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return folders if len(folders) == 1 else []


class FrameBoxes(NamedTuple):
    """What is annotated in a frame.

    Args:
        boxes: ``x1, y1, x2, y2`` of each box in pixels, exactly as the file states them.
        labels: the class of each.
        size: width and height of the frame as the file states them; ``None`` where it does not.
    """

    boxes: list[list[float]]
    labels: list[int]
    size: tuple[int, int] | None = None


def read_boxed_video(
    name: str, images: Path, annotations: Path, suffix: str, read: Callable[[Path], FrameBoxes], **fields: Any
) -> SourceVideo:
    """Make a video of a folder of frames and a folder with one file of boxes a frame, of the same name.

    Boxes that reach out of the frame are clamped to its first and last pixels. What is then empty is left out, and
    noted, and so are annotations without a frame, and files that state another size than their image has.

    Args:
        name: see :class:`endofm_monai.preparation.SourceVideo`.
        images: folder of the frames.
        annotations: folder of the boxes.
        suffix: of the files with boxes.
        read: reads one; what it raises of ``OSError`` and ``ValueError`` says why it cannot be used.
        fields: further arguments of the video.

    Raises:
        ClipReadError: when the image or the boxes of a frame are missing or cannot be read, or a box is not finite or
            inverted: left out, it would make a frame with a polyp one without.
    """
    frames = frame_images(images)
    notes, boxes, labels = [], [], []
    for frame in frames:
        path = annotations / f"{frame.stem}{suffix}"
        try:
            found = read(path)
            if wrong := [box for box in found.boxes if not _is_possible(box)]:
                raise ValueError(f"{wrong[0]} is not finite or inverted; expected x1 <= x2 and y1 <= y2")
        except (OSError, ValueError) as error:
            raise ClipReadError(f"{path}: holds no readable boxes ({error})") from error
        try:
            with Image.open(frame) as image:
                size = image.size
        except OSError as error:
            raise ClipReadError(f"{frame}: is no readable image ({error})") from error
        if found.size not in (None, size):
            notes.append(f"{path}: states a size of {found.size}, but the image has {size}; that counts")
        clamped = [_clamp(box, size) for box in found.boxes]
        kept = [place for place, box in enumerate(clamped) if box[0] < box[2] and box[1] < box[3]]
        notes += [
            f"{path}: the box {box} is left out, as nothing of it is in the frame"
            for place, box in enumerate(found.boxes)
            if place not in kept
        ]
        boxes.append([clamped[place] for place in kept])
        labels.append([found.labels[place] for place in kept])
    stems = {frame.stem for frame in frames}
    for path in sorted(annotations.glob(f"*{suffix}"), key=lambda path: natural_key(path.name)):
        if path.stem not in stems:
            notes.append(f"{path}: belongs to no image in {images}")
    return SourceVideo(name, frames, frame_labels={"box": boxes, "box_label": labels}, notes=notes, **fields)


def _is_possible(box: list[float]) -> bool:
    return all(map(math.isfinite, box)) and box[0] <= box[2] and box[1] <= box[3]


def _clamp(box: list[float], size: tuple[int, int]) -> list[float]:
    box = [min(max(value, 0), size[axis % 2] - 1) for axis, value in enumerate(box)]
    return [int(value) if float(value).is_integer() else value for value in box]
