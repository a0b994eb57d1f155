# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from endofm_monai.data import ClipReadError, check_boxes, clip_read_errors, find_clips, picture_size
from endofm_monai.data.readers.base import VIDEO_SUFFIXES, frame_images, has_suffix, is_hidden, natural_key
from endofm_monai.utils import read_csv

SECTIONS = ("training", "validation", "test")  # of a datalist
Result = TypeVar("Result")

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

    name: str  # in the set and in the files that are written; what is no letter, digit, ``._-/`` becomes ``_``
    image: Path | Sequence[Path]  # a video file, or the frame images in their order
    section: str = "training"  # list of the datalist that its clips go to, one of `SECTIONS`
    fps: float = 30.0  # of frame images, which do not state it
    labels: Mapping[str, Any] = field(default_factory=dict)  # what each of its clips gets
    frame_labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # one value a frame, cut as the frames are
    masks: Sequence[Path] = ()  # one mask image a frame, for ``mask``
    mask_label: int | None = None  # class of the masks' regions, for ``box`` and ``box_label`` around each of them
    notes: Sequence[str] = ()  # what is wrong with its annotations, although it can be used

    def __post_init__(self) -> None:
        parts = (re.sub(r"[^A-Za-z0-9._-]", "_", part).lstrip("._-") or "_" for part in self.name.split("/"))
        object.__setattr__(self, "name", "/".join(parts))
        for key, values in {**self.frame_labels, **self.pictures}.items():
            if not isinstance(self.image, Path) and len(values) != len(self.image):
                raise ValueError(f"{self.name}: has {len(self.image)} frames, but {len(values)} of {key}")

    @property
    def frames(self) -> list[Path]:
        """The frame images; none for a video file."""
        return [] if isinstance(self.image, Path) else [*self.image]

    @property
    def pictures(self) -> dict[str, Sequence[Path]]:
        """The frame images, and the masks if there are any, by the keys of a datalist."""
        return {"image": self.frames, **({"mask": self.masks} if self.masks else {})}

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

    mode: Literal["auto", "index", "copy", "encode"] = "auto"
    clip_seconds: float | None = None  # length of the clips; None keeps videos whole
    remainder: Literal["merge", "keep", "drop"] = "merge"  # what happens to the frames left over, see `clip_ranges`
    fps: float | None = 30.0  # of encoded clips: frames are repeated or left out; None: the source's highest
    short_side: int | None = 256  # of encoded clips in pixels; None keeps the source's
    crf: int = 18  # H.264's constant rate factor: 0 is lossless, 18 hardly visible, 51 worst
    border: Literal["keep", "crop", "mask"] = "keep"
    blank: tuple[tuple[float, float, float, float], ...] = ()  # zones x1, y1, x2, y2 to encode black, as fractions

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, kinds = getattr(self, name), get_args(kind)  # words of a Literal, or types of a number or None
            if get_origin(kind) is Literal and value not in kinds:
                raise ValueError(f"{name}: expected one of {', '.join(kinds)}, found {value}")
            if NoneType in kinds and value is not None and not (isinstance(value, (int, float)) and 0 < value <= 1e5):
                raise ValueError(f"{name}: expected a positive number up to 100,000 or None, found {value}")
        if self.crf not in range(52):
            raise ValueError(f"crf: expected a whole number from 0 to 51, found {self.crf}")
        if np.ndim(self.blank) == 1 and len(self.blank) > 0:
            object.__setattr__(self, "blank", (self.blank,))  # one zone
        for zone in self.blank if isinstance(self.blank, (tuple, list)) else [self.blank]:
            if np.shape(zone) != (4,) or not (0 <= zone[0] < zone[2] <= 1 and 0 <= zone[1] < zone[3] <= 1):
                raise ValueError(f"blank: expected x1,y1,x2,y2 as fractions of width and height, found {zone}")
        of_encoding = ("border", "blank", *(("fps", "short_side", "crf") if self.mode != "auto" else ()))
        known = [each for each in fields(self) if each.name in of_encoding]
        changed = [each.name for each in known if getattr(self, each.name) != each.default]
        if self.mode != "encode" and changed:
            raise ValueError(f"{', '.join(changed)}: need mode=encode, found mode={self.mode}")


def check_layout(name: str, source: str) -> Path:
    """Give the folder in which a dataset's layout begins: ``source``, or the only folder in it.

    A folder that does not look like this is refused; the message says what is missing, and what it looks like.
    """
    root = Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: is not an existing folder")
    folders = [root, *(root / folder for folder in subfolders(root))]
    for folder in folders if len(folders) == 2 else [root]:
        if not _missing(name, folder):
            return folder
    others = [other for other in _SIGNATURES if not _missing(other, root)]
    missing = " and ".join(_missing(name, root))
    guess = f"; it looks like {' or '.join(others)}" if others else ""
    raise ValueError(f"{root}: is not {name} as its card describes it, {missing} missing{guess}")


def _missing(name: str, folder: Path) -> list[str]:
    """What a folder lacks of a dataset's layout, in the form that it is nearest to."""
    return min(([pattern for pattern in form if not any(folder.glob(pattern))] for form in _SIGNATURES[name]), key=len)


def choose_part(parts: Mapping[str, SourceDataset], part: str) -> SourceDataset:
    """Give the part of this name of a dataset."""
    if part not in parts:
        raise ValueError(f"part: expected one of {', '.join(parts)}, found {part}")
    return parts[part]


def share_of(name: str) -> float:
    """Give a number from 0 to 1 that depends on nothing but a name, to split a set that others will be added to."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def split_by_name(name: str) -> str:
    """Give the section of an image or video: by its name alone, a tenth each is for test and validation."""
    return "test" if share_of(name) < 0.1 else "validation" if share_of(name) < 0.2 else "training"


def read_splits(path: str | Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Read which section each image or video belongs to, and what else is said of it, for its ``labels``.

    It is a CSV file with the columns ``name``, ``section`` and perhaps others, as ``group``.
    """
    rows = read_csv(path)
    for line, row in enumerate(rows, start=2):
        if not row.get("name") or row.get("section") not in SECTIONS:
            allowed = ", ".join(SECTIONS)
            raise ValueError(f"{path}: line {line}: expected `name` and `section` of {allowed}, found {row}")
    if taken := {"image", "mask", "box", "box_label", "video"}.intersection(*rows[:1]):
        raise ValueError(f"{path}: has the column `{min(taken)}`, which the prepared set has itself; leave it out")
    if twice := [name for name, count in Counter(row["name"] for row in rows).items() if count > 1]:
        raise ValueError(f"{path}: has two lines of {twice[0]}")
    return {row.pop("name"): (row.pop("section"), row) for row in rows}


def split_stills(
    names: Collection[str], splits: str | None, section_of: Callable[[str], str]
) -> tuple[dict[str, tuple[str, dict[str, str]]], list[str]]:
    """Give section and labels of the stills that a list of :func:`read_splits` names, or of all by ``section_of``.

    What the list names and is not there is told as a problem.
    """
    if not splits:
        return {name: (section_of(name), {}) for name in names}, []
    listed = read_splits(splits)
    missing = sorted(listed.keys() - set(names))
    problems = [f"{splits}: names {len(missing)} that are not there, as {missing[0]}"] if missing else []
    return {name: listed[name] for name in names if name in listed}, problems


def video_files(folder: Path) -> list[Path]:
    """Find the video files in and below a folder, in natural order; none where there is no folder."""
    return [clip for clip in find_clips(folder) if has_suffix(clip, VIDEO_SUFFIXES)] if folder.is_dir() else []


def subfolders(folder: Path) -> list[str]:
    """List the names of the folders in a folder in natural order, without hidden ones; none where there is none."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((name for name in names if not is_hidden(name)), key=natural_key)


def images_by_stem(folder: Path) -> dict[str, Path]:
    """List the images in a folder, if it is there, by name without suffix, in natural order; two of one are refused."""
    images: dict[str, Path] = {}
    for path in frame_images(folder) if folder.is_dir() else []:
        if path.stem in images:
            raise ValueError(f"{folder}: holds both {images[path.stem].name} and {path.name}")
        images[path.stem] = path
    return images


def attempt(function: Callable[..., Result], *arguments: Any) -> Result | str:
    """Call a function that reads clips; or say why that cannot be done."""
    try:
        return function(*arguments)
    except ClipReadError as error:
        return str(error)


def read_videos(
    read: Callable[..., SourceVideo], arguments: Iterable[tuple[Any, ...]]
) -> tuple[list[SourceVideo], list[str]]:
    """Read the annotations of videos; those that ``read`` refuses with ``ClipReadError`` are told as problems."""
    found = [attempt(read, *each) for each in arguments]
    videos = [video for video in found if not isinstance(video, str)]
    return videos, [problem for problem in found if isinstance(problem, str)]


def boxes_of_class(boxes: list[Any], label: int) -> dict[str, list[Any]]:
    """Give ``box`` and ``box_label`` for a list of boxes a frame, all of one class."""
    return {"box": boxes, "box_label": [[label] * len(found) for found in boxes]}


class FrameBoxes(NamedTuple):
    """What a file says of a frame: boxes ``x1, y1, x2, y2`` in pixels, their classes, and the frame's width, height."""

    boxes: list[list[float]]
    labels: list[int]
    size: tuple[int, int] | None = None


ReadBoxes = Callable[[Path], FrameBoxes]


def read_boxed_videos(
    root: Path, sections: Mapping[str, str], images: str, annotations: str, suffix: str, read: ReadBoxes, **fields: Any
) -> tuple[list[SourceVideo], list[str]]:
    """Make videos of ``<part>/<images>/<name>/<frame>.jpg`` with ``<part>/<annotations>/<name>/<frame><suffix>``.

    The ``sections`` say for each part which list of the datalist it is for. For further arguments see
    :func:`read_boxed_video`; what cannot be read is told as by :func:`read_videos`, and so are images beside folders.
    """

    def read_video(part: str, name: str) -> SourceVideo:
        folders = root / part / images / name, root / part / annotations / name
        return read_boxed_video(f"{part}/{name}", *folders, suffix, read, section=sections[part], **fields)

    videos, problems = read_videos(
        read_video, [(part, name) for part in sections for name in subfolders(root / part / images)]
    )
    for folder in (root / part / images for part in sections):
        if loose := frame_images(folder) if folder.is_dir() else []:
            problems.append(
                f"{loose[0]}: lies in no folder of a video, so that it is left out ({len(loose)} images do)"
            )
    return videos, problems


def read_boxed_video(
    name: str, images: Path, annotations: Path, suffix: str, read: ReadBoxes, **fields: Any
) -> SourceVideo:
    """Make a video of a folder of frames and a folder with one file of boxes a frame, of the same name.

    Boxes that reach out of the frame are clamped to its first and last pixels. What is then empty is left out. That is
    noted, as are annotations without a frame, and files that state another size than their image has. What ``read``
    raises becomes a ``ClipReadError``, and so do boxes that are not finite or inverted, or of another size: left out,
    they would make frames with a polyp ones without. Further ``fields`` are those of the :class:`SourceVideo`.
    """
    frames = frame_images(images)
    found_in = sorted(annotations.glob("*"), key=lambda path: natural_key(path.name))
    files = {path.stem: path for path in found_in if path.suffix.lower() == suffix and not is_hidden(path.name)}
    notes: list[str] = []
    drawn, boxes, labels = list[list[list[float]]](), list[list[list[float]]](), list[list[int]]()
    for frame in frames:
        path = files.pop(frame.stem, annotations / f"{frame.stem}{suffix}")
        with clip_read_errors(path, "holds no readable boxes"):
            found = read(path)
            for box in found.boxes:
                if not (np.isfinite(box).all() and box[0] <= box[2] and box[1] <= box[3]):
                    raise ValueError(f"{box} is not finite or inverted; expected x1 <= x2 and y1 <= y2")
        size = picture_size(frame)
        if found.size not in (None, size):
            notes.append(f"{path}: states a size of {found.size}, but the image has {size}; that counts")
        drawn.append(found.boxes)
        boxes.append([])
        labels.append([])
        for box, label in zip(found.boxes, found.labels, strict=True):
            inside = [min(max(value, 0), side - 1) for value, side in zip(box, size * 2, strict=True)]
            if inside[0] < inside[2] and inside[1] < inside[3]:
                boxes[-1].append([int(value) if float(value).is_integer() else value for value in inside])
                labels[-1].append(label)
            else:
                notes.append(f"{path}: the box {box} is left out, as nothing of it is in the frame")
    if drawn:
        check_boxes(drawn, size[1], size[0], name)
    notes += [f"{path}: belongs to no image in {images}" for path in files.values()]
    return SourceVideo(name, frames, frame_labels={"box": boxes, "box_label": labels}, notes=notes, **fields)
