# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What is written of a video's answers, frame by frame as they come: each format a context manager of one video.

A file takes its name when all frames are written; after an error nothing is left.
"""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from nibabel import Nifti1Header, Nifti2Header
from PIL import Image

from endofm_monai.data import ClipInfo
from endofm_monai.formats.annotations import Annotations, track_from_boxes
from endofm_monai.formats.cvat_xml import write_cvat_xml
from endofm_monai.formats.masks import coco_mask, mask_from_coco, mask_rectangle
from endofm_monai.inferers import Answer, BoxLinker
from endofm_monai.utils import PathLike, atomic_path, open_csv, remove_leftovers, temporary_prefix
from endofm_monai.visualize import draw_boxes, overlay_mask

__all__ = ["BOX_WRITERS", "MASK_WRITERS", "VideoOutput", "WriteFrame", "open_video", "read_coco_masks", "write_video"]

MAX_VIDEO_SIDE = 16384  # that x264 encodes
WriteFrame = Callable[[int, np.ndarray, Answer], object]
"""Takes the number of the next frame, from 0, its pixels, uint8 RGB ``(H, W, 3)``, and the predictor's answer."""


@dataclass(frozen=True)
class VideoOutput:
    """What the writers know of a video before its first frame."""

    folder: Path  # where to write
    name: str  # of the video
    frame_names: Sequence[str]
    info: ClipInfo
    class_names: Sequence[str] = ("polyp",)  # from 1 on
    threshold: float = 0.5  # smallest score of a box in pictures and tracks; tables have all
    start: int = 0  # number in its video of the first frame of a part

    def likely(self, answer: Answer) -> Answer:
        """The boxes of a frame with at least the score ``threshold``."""
        kept = answer["label_scores"] >= self.threshold
        return {key: answer[key][kept] for key in ("box", "label", "label_scores")}


@contextmanager
def _png_masks(output: VideoOutput) -> Iterator[WriteFrame]:
    """``masks/<frame's name>.png``, 0 or 255."""
    folder, names = output.folder / "masks", output.frame_names
    output.folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output.folder)
    with TemporaryDirectory(prefix=temporary_prefix(), dir=output.folder) as temporary:
        made = Path(temporary, "masks")
        made.mkdir()
        yield lambda index, frame, answer: Image.fromarray(_mask(answer) * 255).save(made / f"{names[index]}.png")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)


@contextmanager
def _nifti_masks(output: VideoOutput) -> Iterator[WriteFrame]:
    """``masks.nii.gz``, a label volume ``(X, Y, T)`` of 0 and 1 that 3D Slicer and ITK-SNAP open.

    Pixels and frames are 1 apart; x runs to the right and y down on the screen, as ITK has it. MONAI's
    ``NibabelWriter``, whose header this is, wants the whole volume in memory. More than 32,767 frames make a NIfTI-2
    file, which ITK (5.4) does not read.
    """
    shape, affine = (output.info.width, output.info.height, len(output.frame_names)), np.diag([-1.0, -1.0, 1.0, 1.0])
    header = (Nifti1Header if max(shape) <= np.iinfo(np.int16).max else Nifti2Header)()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    with (
        atomic_path(output.folder / "masks.nii.gz") as temporary,
        open(temporary, "wb") as packed,
        gzip.GzipFile("", "wb", 1, packed, mtime=0) as file,  # which 7-Zip would unpack to the temporary name
    ):
        header.write_to(file)
        yield lambda index, frame, answer: file.write(_mask(answer).tobytes())


@contextmanager
def _coco_masks(output: VideoOutput) -> Iterator[WriteFrame]:
    """``masks.json``: an annotation for each frame with a mask, in COCO's uncompressed runs, for ``pycocotools``."""
    size = {"width": output.info.width, "height": output.info.height}
    images = [{"id": number, "file_name": name, **size} for number, name in enumerate(output.frame_names, start=1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(output.class_names, start=1)]
    head = json.dumps({"images": images, "categories": categories})[:-1] + ', "annotations": [\n'
    numbers = count(1)
    with _open_list(output.folder / "masks.json", head, ",\n", "\n]}\n") as append:

        def write(index: int, frame: np.ndarray, answer: Answer) -> None:
            mask = _mask(answer)
            if mask.any():
                ids = {"id": next(numbers), "image_id": index + 1, "category_id": 1}
                append(json.dumps({**ids, **coco_mask(mask, mask_rectangle(mask))}))

        yield write


def read_coco_masks(path: PathLike) -> Iterator[tuple[int, str, np.ndarray]]:
    """Frame (from 0), class and mask (bool ``(H, W)``) of each annotation of a ``masks.json``, one by one."""
    with open(path, encoding="utf-8") as file:
        names = {category["id"]: category["name"] for category in json.loads(next(file) + "]}")["categories"]}
        for line in file:
            if line.startswith("{"):
                annotation = json.loads(line.rstrip(",\n"))
                mask = mask_from_coco(annotation["segmentation"])
                yield annotation["image_id"] - 1, names[annotation["category_id"]], mask


@contextmanager
def _overlay(output: VideoOutput) -> Iterator[WriteFrame]:
    """``overlay.mp4``: the frames with their masks laid over them, or with their likely boxes."""

    def draw(frame: np.ndarray, answer: Answer) -> np.ndarray:
        if "mask" in answer:
            return overlay_mask(frame, _mask(answer))
        likely = output.likely(answer)
        return draw_boxes(frame, likely["box"], likely["label"], likely["label_scores"], output.class_names)

    with open_video(output.folder / "overlay.mp4", output.info.fps, output.info.pixel_aspect) as write:
        yield lambda index, frame, answer: write(draw(frame, answer))


@contextmanager
def _coco_boxes(output: VideoOutput) -> Iterator[WriteFrame]:
    """``detections.json``, COCO's results format: ``image_id`` is the frame's number, counted from 1."""
    with _open_list(output.folder / "detections.json", "[\n ", ",\n ", "\n]") as append:

        def write(index: int, frame: np.ndarray, answer: Answer) -> None:
            sizes = answer["box"][:, 2:] - answer["box"][:, :2]
            for size, (box, label, score) in zip(sizes.tolist(), _boxes(answer), strict=True):
                bbox = [round(side, 2) for side in (*box[:2], *size)]
                result = {"image_id": index + 1, "category_id": label, "bbox": bbox, "score": float(f"{score:.9g}")}
                append(json.dumps(result, indent=1).replace("\n", "\n "))

        yield write


@contextmanager
def _csv_boxes(output: VideoOutput) -> Iterator[WriteFrame]:
    """``detections.csv``, a row for each detection; frames count from 0."""
    columns = ["video", "frame", "x1", "y1", "x2", "y2", "label", "class", "score"]
    with open_csv(output.folder / "detections.csv", columns) as write_rows:

        def rows(index: int, answer: Answer) -> Iterator[list[Any]]:
            for box, label, score in _boxes(answer):
                sides = [f"{side:.2f}" for side in box]
                yield [output.name, index, *sides, label, output.class_names[label - 1], f"{score:.9g}"]

        yield lambda index, frame, answer: write_rows(rows(index, answer))


@contextmanager
def _cvat_boxes(output: VideoOutput) -> Iterator[WriteFrame]:
    """``annotations.xml``, CVAT's format "CVAT for video 1.1": a track for each polyp, to be corrected there."""
    linker = BoxLinker()
    yield lambda index, frame, answer: linker.push(output.likely(answer))
    info, names = output.info, output.class_names
    tracks = [track_from_boxes(track, number, names, info.frames) for number, track in enumerate(linker.tracks)]
    annotations = Annotations(output.name, info.frames, info.width, info.height, names, tracks, start=output.start)
    write_cvat_xml(annotations, output.folder / "annotations.xml")


Writer = Callable[[VideoOutput], AbstractContextManager[WriteFrame]]
MASK_WRITERS: dict[str, Writer] = {"png": _png_masks, "nifti": _nifti_masks, "coco": _coco_masks, "overlay": _overlay}
BOX_WRITERS: dict[str, Writer] = {"coco": _coco_boxes, "csv": _csv_boxes, "cvat": _cvat_boxes, "overlay": _overlay}


def video_rate(fps: float) -> Fraction:
    """Give the rate to state in a file: frames a second, or below one seconds a frame, by at most 1001."""
    return 1 / video_rate(1 / fps) if fps < 1 else Fraction(fps).limit_denominator(1001)


@contextmanager
def open_video(
    path: PathLike, fps: float, pixel_aspect: float = 1.0, **options: Any
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write an H.264 video in mp4, as common players and browsers show it, frame by frame and atomically.

    H.264 wants even sides: an odd one gets its last row or column twice. Frames with a side above 16,384 pixels, more
    than can be encoded, are scaled down. Pixels are ``pixel_aspect`` times as wide as high. ``options`` are those of
    x264, as ``crf`` (quality, 0 is lossless; a step of 6 about halves the size), 18 by default. The function that is
    given writes a uint8 RGB frame ``(H, W, 3)``; all must have the size of the first one.
    """
    if not fps > 0:
        raise ValueError(f"{os.fspath(path)}: `fps` must be positive, but got {fps}.")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        settings = {name: str(value) for name, value in {"crf": 18, "preset": "veryfast", **options}.items()}
        stream = container.add_stream("libx264", video_rate(fps), options=settings)
        stream.pix_fmt = "yuv420p"
        # stated, as players take the colors of HD videos for those of another matrix
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(1001)
        shapes: list[tuple[int, ...]] = []

        def write(frame: np.ndarray) -> None:
            shapes.append(frame.shape)
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shapes[0]:
                raise ValueError(
                    f"{os.fspath(path)}: frame {len(shapes) - 1} must be uint8 (H, W, 3) like the first one, "
                    f"{shapes[0]}, but is {frame.dtype} {frame.shape}."
                )
            if max(frame.shape) > MAX_VIDEO_SIDE:
                image = Image.fromarray(frame)
                image.thumbnail((MAX_VIDEO_SIDE, MAX_VIDEO_SIDE))
                frame = np.asarray(image)
            even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if len(shapes) == 1:
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))

        yield write
        if not shapes:
            raise ValueError(f"{os.fspath(path)}: there is no frame to write.")
        container.mux(stream.encode())


def write_video(path: PathLike, frames: Iterable[np.ndarray], fps: float, **options: Any) -> Path:
    """Write all ``frames`` to a video, and give its path; see :func:`open_video`."""
    with open_video(path, fps, **options) as write:
        for frame in frames:
            write(frame)
    return Path(path)


def _mask(answer: Answer) -> np.ndarray:
    """The mask ``(H, W)``, uint8, 0 or 1."""
    return answer["mask"][0].numpy()


def _boxes(answer: Answer) -> Iterator[tuple[list[float], int, float]]:
    """Box, class and score of each detection."""
    return zip(*(answer[key].tolist() for key in ("box", "label", "label_scores")), strict=True)


@contextmanager
def _open_list(path: Path, head: str, separator: str, tail: str) -> Iterator[Callable[[str], object]]:
    """Write a JSON file with a list whose entries, as text, come one by one."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(head)
        before = chain([""], repeat(separator))
        yield lambda text: file.write(next(before) + text)
        file.write(tail)
