# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace
from scipy.ndimage import binary_fill_holes
from skimage.measure import label, regionprops
from skimage.morphology import convex_hull_image, isotropic_erosion, isotropic_opening

from endofm_monai.data import ClipInfo, ClipReader, ClipReadError, open_clip
from endofm_monai.formats.writers import MAX_VIDEO_SIDE, video_rate
from endofm_monai.preparation.sources import PreparationSettings, SourceVideo
from endofm_monai.utils import atomic_path

# Several threads, and x264's macroblock tree, give other bytes from run to run. A keyframe a second is quick to seek.
_X264 = {"preset": "medium", "mbtree": "0", "threads": "1", "g": "30"}
_FRAMES = 24  # of a clip, in which its content area is looked for
# The border is black or dark gray, and compression and glare brighten it a little: mucosa in the light is far above.
_THRESHOLD, _MARGIN, _BRIGHTEST_BORDER = 24, 16, 64
_FIT = 0.97  # of a shape to what was found: intersection over union


@dataclass(frozen=True)
class ContentArea:
    """The part of a frame that shows the endoscope's picture."""

    mask: np.ndarray  # bool (H, W), true in the picture
    shape: str  # "full" (the whole frame), "rectangle", "octagon", "circle", which the border may cut off, or "other"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The extent ``x1, y1, x2, y2`` in pixels, x2 and y2 exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def find_content_area(reader: ClipReader) -> ContentArea:
    """Find the endoscope's picture in a clip whose border stays black: what is ever bright, in one piece.

    Frames spread over the clip are looked at together, since the picture itself is dark where the lumen is. Text and
    logos in the border are left out: they are thinner than the picture, or apart from it.
    """
    info = reader.probe()
    brightness = np.zeros((info.height, info.width), np.float32)
    for _, frame in reader.stream(np.linspace(0, info.frames - 1, min(_FRAMES, info.frames), dtype=int).tolist()):
        brightness = np.maximum(brightness, frame.max(axis=2))
    return fit_content_area(brightness)


def fit_content_area(brightness: np.ndarray) -> ContentArea:
    """Find the endoscope's picture by how bright each place ever is, 0 to 255 ``(H, W)``; if nothing is, all of it."""
    side = max(1, min(brightness.shape) // 20)
    ends = slice(None, side), slice(-side, None)
    corners = [np.median(brightness[rows, columns]) for rows in ends for columns in ends]
    border = sorted(corners)[1]  # text or a logo may stand in the others
    full = ContentArea(np.ones(brightness.shape, bool), "full")
    if border > _BRIGHTEST_BORDER:
        return full
    bright = binary_fill_holes(brightness > max(_THRESHOLD, border + _MARGIN))
    stroke = max(2, round(min(bright.shape) / 60))  # wider than the strokes of letters
    bright = isotropic_opening(np.pad(bright, stroke, mode="edge"), stroke)[stroke:-stroke, stroke:-stroke]
    regions = regionprops(label(bright))
    if not regions:
        return full
    largest = max(regions, key=lambda region: region.area)
    mask = np.zeros_like(bright)
    mask[largest.slice] = convex_hull_image(largest.image)
    return full if mask.mean() > 0.99 else _fit(mask)


def _fit(mask: np.ndarray) -> ContentArea:
    """Replace a ragged mask by the plain shape that it is, if it is one."""
    left, top, right, bottom = ContentArea(mask, "other").box
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    # the half planes that cut the four corners off, as far as the mask reaches towards them
    octagon = np.all([towards <= towards[mask].max() for towards in (x + y, x - y, y - x, -x - y)], axis=0)
    shapes = {"rectangle": inside, "octagon": inside & octagon, "circle": inside & _disk(mask, x, y)}
    fits = {shape: (each & mask).sum() / (each | mask).sum() for shape, each in shapes.items()}
    # rounded corners fit an octagon a little better than the rectangle that they belong to
    best = "rectangle" if fits["rectangle"] > max(_FIT, max(fits.values()) - 0.01) else max(fits, key=fits.__getitem__)
    return ContentArea(shapes[best], best) if fits[best] > _FIT else ContentArea(mask, "other")


def _disk(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The disk through the part of the outline that the frame does not cut off (least squares)."""
    outline = mask & ~isotropic_erosion(mask, 1)
    outline[[0, -1]] = outline[:, [0, -1]] = False
    if outline.sum() < 8:
        return np.zeros_like(mask)
    points = np.stack([x[outline], y[outline]], 1)
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    (center_x, center_y, constant), *_ = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)
    return (x - center_x) ** 2 + (y - center_y) ** 2 <= constant + center_x**2 + center_y**2


def encode_clips(
    video: SourceVideo, ranges: list[tuple[int, int]], output: Path, settings: PreparationSettings
) -> list[str]:
    """Encode clips of a video, each from a first to a last frame, with H.264, without any metadata of the source.

    What is read shows as it does in the source: at the same times, at a constant rate; in the same colors, whose matrix
    and range the file states; with square pixels; smaller where a side is more than H.264 holds. Labels a frame
    are refused, as they would no longer fit resampled and resized frames. Gives the paths of the clips, relative to
    ``output``; a frame that cannot be decoded or encoded is a ``ClipReadError``.
    """
    if video.frame_labels or video.masks:
        raise ValueError(f"{video.name}: has masks or labels a frame, use mode=index or mode=copy")
    paths = [f"clips/{video.name}.mp4"]
    if len(ranges) > 1:
        paths = [f"clips/{video.name}_{number:05d}.mp4" for number in range(1, len(ranges) + 1)]
    with open_clip(video.image, fps=video.fps) as reader:
        info, starts = reader.probe(), reader.times()
        # the rate that keeps all frames: where it varies, the highest, but for single frames
        is_steady = len(starts) == 1 or _copies(np.append(starts, len(starts) / info.fps), info.fps).all()
        highest = info.fps if is_steady else float(1 / np.quantile(np.diff(starts), 0.05))
        times = np.append(starts, max(info.duration, starts[-1] + 1 / highest))  # gaps are no part of a duration
        rate = video_rate(settings.fps or highest)
        area = None if settings.border == "keep" else find_content_area(reader)
        frames = (frame for _, frame in reader.stream(range(ranges[-1][1] + 1)))
        for path, (first, last) in zip(paths, ranges, strict=True):
            copies = _copies(times[first : last + 2] - times[first], float(rate))
            try:
                with atomic_path(output / path) as temporary:
                    _encode(islice(frames, len(copies)), copies, temporary, rate, info, area, settings)
            except av.FFmpegError as error:  # none of a full disk
                raise ClipReadError(f"{video.files[0]}: cannot be encoded ({error.strerror})") from error
    return paths


def _copies(times: np.ndarray, rate: float) -> np.ndarray:
    """Give how often each frame is repeated at a constant rate, from the times of the frames and the end of the last.

    A frame is shown from the tick of the rate that is nearest to its time, until the next frame is.
    """
    ticks = np.floor(times * rate + 0.5 + 1e-6).astype(int)
    ticks[-1] = max(ticks[-1], 1)
    return np.diff(ticks.clip(max=ticks[-1]))


def _encode(
    frames: Iterator[np.ndarray],
    copies: np.ndarray,
    path: Path,
    rate: Fraction,
    info: ClipInfo,
    area: ContentArea | None,
    settings: PreparationSettings,
) -> None:
    """Write a clip in which each frame is repeated as ``copies`` say."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={**_X264, "crf": str(settings.crf)})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
        filters, (stream.width, stream.height) = _filters(info, area, settings)
        outside = _outside(area, stream.height, stream.width) if settings.border == "mask" and area else None
        written = 0
        for image, count in zip(frames, copies, strict=True):
            if not count:
                continue
            filters.vpush(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"))
            shown = filters.vpull()
            if outside is not None:
                planes = shown.to_ndarray()
                black = np.where(np.arange(len(planes)) < stream.height, 16, 128)[:, None]
                shown = av.VideoFrame.from_ndarray(np.where(outside, black, planes).astype(np.uint8), format="yuv420p")
            for _ in range(count):
                shown.pts, shown.time_base, shown.pict_type = written, 1 / rate, 0
                container.mux(stream.encode(shown))
                written += 1
        container.mux(stream.encode())


def _filters(info: ClipInfo, area: ContentArea | None, settings: PreparationSettings) -> tuple[Graph, tuple[int, int]]:
    """Make the filters that paint zones black, crop and scale frames, and give the width and height that come out."""
    left, top, right, bottom = (0, 0, info.width, info.height) if area is None else area.box
    across, down = right - left, bottom - top
    sides = across * max(info.pixel_aspect, 1.0), down / min(info.pixel_aspect, 1.0)  # with square pixels
    scale = min((settings.short_side or min(sides)) / min(sides), MAX_VIDEO_SIDE / max(sides))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in sides)
    steps = []
    for zone in settings.blank:
        edges = [round(share * (info.width, info.height)[place % 2], 6) for place, share in enumerate(zone)]
        x1, y1, x2, y2 = (*map(math.floor, edges[:2]), *map(math.ceil, edges[2:]))  # all pixels that it touches
        steps.append(("drawbox", f"x={x1}:y={y1}:w={x2 - x1}:h={y2 - y1}:color=black:t=fill"))
    exact = "flags=bilinear+accurate_rnd+full_chroma_int:out_color_matrix=smpte170m:out_range=tv"
    steps += [("crop", f"{across}:{down}:{left}:{top}:exact=1"), ("scale", f"{width}:{height}:{exact}")]
    graph = Graph()
    rgb = av.VideoFormat("rgb24")
    nodes = [graph.add_buffer(width=info.width, height=info.height, format=rgb, time_base=Fraction(1, 1000))]
    nodes += [graph.add(name, arguments) for name, arguments in [*steps, ("format", "yuv420p"), ("setsar", "1")]]
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
