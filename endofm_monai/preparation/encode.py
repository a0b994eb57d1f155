# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.filter import Graph

from endofm_monai.data import ClipReader, ClipReadError, open_clip
from endofm_monai.data.readers.paths import VIDEO_SUFFIXES, has_suffix
from endofm_monai.preparation.content_area import ContentArea, find_content_area
from endofm_monai.preparation.sources import PreparationSettings, SourceVideo
from endofm_monai.utils import atomic_path

# Several threads, and x264's macroblock tree, give other bytes from run to run. A keyframe a second is quick to seek.
_X264 = {"preset": "medium", "mbtree": "0", "threads": "1", "g": "30"}
_CHUNK = 32  # frames read at a time from what is no video file


def encode_clips(
    video: SourceVideo, ranges: list[tuple[int, int]], output: Path, settings: PreparationSettings
) -> list[str]:
    """Encode clips of a video, each from a first to a last frame, with H.264, without any metadata of the source.

    Labels a frame are refused, as they would no longer fit resampled and resized frames.

    Returns:
        the paths of the clips, relative to ``output``.

    Raises:
        ClipReadError: when a frame cannot be decoded.
    """
    if video.frame_labels or video.masks:
        raise ValueError(f"{video.name}: has masks or labels a frame, use mode=index or mode=copy")
    paths = [f"clips/{video.name}.mp4"]
    if len(ranges) > 1:
        paths = [f"clips/{video.name}_{number:05d}.mp4" for number in range(1, len(ranges) + 1)]
    with open_clip(video.frames or video.files[0], fps=video.fps) as reader:
        info = reader.probe()
        area = None if settings.border == "keep" else find_content_area(reader)
        frames = _decode(reader, video)
        for path, (first, last) in zip(paths, ranges, strict=True):
            with atomic_path(output / path) as temporary:
                count = _encode(islice(frames, last - first + 1), temporary, info.fps, area, settings)
            if count != last - first + 1:
                (output / path).unlink()
                raise ClipReadError(f"{reader.path}: frame {first + count} of {info.frames} cannot be decoded")
    return paths


def _decode(reader: ClipReader, video: SourceVideo) -> Iterator[av.VideoFrame]:
    """Decode all frames in order, those of a plain video file without a detour through RGB."""
    if not video.frames and has_suffix(video.files[0], VIDEO_SUFFIXES):
        with av.open(str(video.files[0]), metadata_errors="replace") as container:
            container.streams.video[0].thread_count = 1
            try:
                for number, frame in enumerate(container.decode(container.streams.video[0])):
                    if number == 0 and "DISPLAYMATRIX" in frame.side_data:
                        break  # the reader turns the frames as they are shown
                    yield frame
                else:
                    return
            except av.FFmpegError as error:
                raise ClipReadError(f"{reader.path}: cannot be decoded ({error.strerror})") from error
    frames = reader.probe().frames
    for start in range(0, frames, _CHUNK):
        for image in reader.read(range(start, min(start + _CHUNK, frames))).permute(1, 2, 3, 0).numpy():
            yield av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")


def _encode(
    frames: Iterator[av.VideoFrame],
    path: Path,
    source_fps: float,
    area: ContentArea | None,
    settings: PreparationSettings,
) -> int:
    """Write a clip, and give the number of source frames that it was made of."""
    rate = Fraction(settings.fps or source_fps).limit_denominator(1001)
    repeats = float(rate) / source_fps if settings.fps else 1.0
    count = written = 0
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={**_X264, "crf": str(settings.crf)})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        filters: Graph | None = None
        for count, frame in enumerate(frames, 1):
            if filters is None:
                filters, (stream.width, stream.height) = _filters(frame, area, settings)
                outside = _outside(area, stream.height, stream.width) if settings.border == "mask" and area else None
            copies = math.ceil(count * repeats - 1e-6) - written
            if not copies:
                continue
            frame.pts = None
            filters.vpush(frame)
            shown = filters.vpull()
            if outside is not None:
                planes = shown.to_ndarray()
                black = np.where(np.arange(len(planes)) < stream.height, 16, 128)[:, None]
                shown = av.VideoFrame.from_ndarray(np.where(outside, black, planes).astype(np.uint8), format="yuv420p")
            for _ in range(copies):
                shown.pts, shown.time_base, shown.pict_type = written, 1 / rate, 0
                container.mux(stream.encode(shown))
                written += 1
        container.mux(stream.encode())
    return count


def _filters(
    frame: av.VideoFrame, area: ContentArea | None, settings: PreparationSettings
) -> tuple[Graph, tuple[int, int]]:
    """Make the filters that paint zones black, crop and scale frames, and give the width and height that come out."""
    left, top, right, bottom = (0, 0, frame.width, frame.height) if area is None else area.box
    across, down = right - left, bottom - top
    scale = (settings.short_side or min(across, down)) / min(across, down)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (across, down))
    steps = []
    for zone in settings.blank:
        x1, y1, x2, y2 = (share * (frame.width, frame.height)[place % 2] for place, share in enumerate(zone))
        steps.append(("drawbox", f"x={x1:.0f}:y={y1:.0f}:w={x2 - x1:.0f}:h={y2 - y1:.0f}:color=black:t=fill"))
    steps += [("crop", f"{across}:{down}:{left}:{top}:exact=1"), ("scale", f"{width}:{height}:flags=bilinear")]
    graph = Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))]
    nodes += [graph.add(name, arguments) for name, arguments in [*steps, ("format", "yuv420p")]]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph, (width, height)


def _outside(area: ContentArea, height: int, width: int) -> np.ndarray:
    """Give what is outside of the content area in a cropped frame, as planes of yuv420p ``(3 H / 2, W)``."""
    left, top, right, bottom = area.box
    rows = np.linspace(top, bottom - 1, height).round().astype(int)
    columns = np.linspace(left, right - 1, width).round().astype(int)
    outside = ~area.mask[np.ix_(rows, columns)]
    chroma = outside[::2, ::2].reshape(-1)
    return np.concatenate([outside.reshape(-1), chroma, chroma]).reshape(-1, width)
