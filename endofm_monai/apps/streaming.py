# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from monai.data.box_utils import clip_boxes_to_image
from torch import nn

from endofm_monai.apps.close_up import CloseUp
from endofm_monai.networks import unwrap
from endofm_monai.networks.blocks import FrameFeatures
from endofm_monai.transforms import FitClip, NormalizeClip, SelectDetections

__all__ = ["Detections", "StreamingDetector"]

Detections = dict[str, torch.Tensor]
"""Of a frame: ``box`` ``(D, 4)``, xyxy in its pixels, ``label`` and ``label_scores`` ``(D,)``, best first."""


class StreamingDetector:
    """Detects polyps in the frames of a video as they come, encoding each frame once.

    What the first stage knows of the last frames is kept, and each frame in turn is refined by some of its neighbours:
    in the ``"offline"`` mode by frames before and after it, so that its detections come ``window`` frames later; in the
    ``"online"`` mode, for live use, by frames before it, and at once. Which neighbours depends on nothing but the
    seed and the frame's number, and a frame of another video is never among them.

    Args:
        network: an :class:`endofm_monai.networks.nets.EndoFMDetector`; set it to evaluation before.
        fit: brings frames to the network's size.
        normalize: brings pixels to the network's range.
        select: chooses among the network's predictions.
        num_supports: number of neighbours; fewer where the video has no more.
        window: their largest distance in frames.
        mode: ``"offline"`` or ``"online"``.
        seed: seed of the choice of neighbours.
        device: where to compute; by default where the network is.
        close_up: look again at small polyps, enlarged to this share of the frame; see
            :class:`endofm_monai.apps.close_up.CloseUp`.
        reference_clamped_supports: draw half of the supports from the places of the ``window`` frames before, half from
            those of the frames after; beyond an end of the video its first or last frame takes their place, so that a
            frame may support another twice, or itself, as published (10 of 9 + 9 places). Only ``"offline"``.

    Raises:
        ValueError: when ``mode`` is neither, or does not go with ``reference_clamped_supports``, or ``close_up`` is no
            share.

    Example::

        detector = StreamingDetector(network, FitClip(256), mode="online")
        for frame in camera:  # uint8 (3, H, W)
            ((index, detections),) = detector.push(frame.unsqueeze(1), video="live")
    """

    def __init__(
        self,
        network: nn.Module,
        fit: FitClip,
        normalize: NormalizeClip | None = None,
        select: SelectDetections | None = None,
        num_supports: int = 10,
        window: int = 9,
        mode: str = "offline",
        seed: int = 0,
        device: str | torch.device | None = None,
        close_up: float | None = None,
        reference_clamped_supports: bool = False,
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f'`mode` must be "offline" or "online", but got {mode!r}.')
        if reference_clamped_supports and mode == "online":
            raise ValueError('`reference_clamped_supports` goes only with `mode` "offline".')
        self.network = unwrap(network)
        self.fit = fit
        self.normalize = normalize or NormalizeClip()
        self.select = select or SelectDetections()
        self.num_supports = num_supports
        self.window = window
        self.mode = mode
        self.seed = seed
        self.reference_clamped_supports = reference_clamped_supports
        self.device = device or next(network.parameters()).device
        self.close_up = None if close_up is None else CloseUp(self, close_up)
        self.reset()

    def reset(self, video: object = None) -> None:
        """Forget all frames, and begin ``video``."""
        self.video = video
        self._memory: OrderedDict[int, list[FrameFeatures]] = OrderedDict()
        self._due_frames: dict[int, torch.Tensor] = {}  # for close-ups
        self._frame_size: Sequence[int] = (0, 0)
        self._seen = 0  # frames of the video
        self._done = 0  # frames whose detections were given

    @property
    def memory_bytes(self) -> int:
        """Size of what is kept of frames; bounded by the window, whatever the length of the video."""
        features = sum(part.nbytes for levels in self._memory.values() for level in levels for part in level)
        return features + sum(frame.nbytes for frame in self._due_frames.values())

    def detect(self, blocks: Iterable[torch.Tensor], video: object = None) -> Iterator[tuple[int, Detections]]:
        """Detect in a whole video, given in blocks of frames; see ``push``."""
        self.reset(video)
        for block in blocks:
            yield from self.push(block, video)
        yield from self.flush()

    def push(self, frames: torch.Tensor, video: object = None) -> list[tuple[int, Detections]]:
        """Take the next frames of a video.

        Args:
            frames: one or more frames, uint8 ``(3, T, H, W)``. More at a time are quicker on a GPU.
            video: name of the video. With another one than before the detector starts anew, and what is still due of
                the former one is lost, unless ``flush`` was called. Where the size of the frames changes within a
                video, frames before and after do not support each other.

        Returns:
            number and detections of each frame that is due, in order.
        """
        due: list[tuple[int, Detections]] = []
        if video != self.video:
            self.reset(video)
        elif self._seen and frames.shape[-2:] != self._frame_size:
            due = self.flush()
            self._memory.clear()
        self._frame_size = frames.shape[-2:]
        for levels, frame in zip(self.encode(frames), frames.split(1, dim=1), strict=True):
            self._memory[self._seen] = levels
            if self.close_up is not None:
                self._due_frames[self._seen] = frame
            self._seen += 1
        return due + self._give(self._seen - (self.window if self.mode == "offline" else 0))

    def flush(self) -> list[tuple[int, Detections]]:
        """Give the detections of the last frames of a video, after which none comes."""
        return self._give(self._seen)

    @torch.no_grad()
    def encode(self, frames: torch.Tensor) -> list[list[FrameFeatures]]:
        """First stage for each of the frames, alone: its features ``(1, 1, ...)`` at each level."""
        batch = self.normalize(self.fit(frames.to(self.device))).transpose(0, 1).unsqueeze(2)  # (T, 3, 1, H, W)
        levels = self.network.encode(batch)
        return [[FrameFeatures(*(part[i : i + 1] for part in level)) for level in levels] for i in range(len(batch))]

    @torch.no_grad()
    def refine(
        self, key: list[FrameFeatures], supports: list[list[FrameFeatures]], frame_size: Sequence[int]
    ) -> Detections:
        """Second stage of a key frame of height and width ``frame_size``, and what is chosen, in its pixels.

        A frame without any support is its own, as at the ends of a video in the published code: the network has never
        seen the features of a frame without those of a support added.
        """
        supports = supports or [key]
        levels = [
            FrameFeatures(*(torch.cat(parts, dim=1) for parts in zip(*frames, strict=True)))
            for frames in zip(key, *supports, strict=True)
        ]
        (found,) = self.select(self.network.head.refine(levels))
        height, width = frame_size
        box, kept = clip_boxes_to_image(self.fit.frame_map(height, width).restore(found["box"]), (width, height))
        return {"box": box, "label": found["label"][kept], "label_scores": found["label_scores"][kept]}

    def supports(self, index: int) -> list[int]:
        """Numbers of the frames that support frame ``index``, of those in memory."""
        random = np.random.default_rng([self.seed, index])
        if self.reference_clamped_supports:
            distances, half = np.arange(1, self.window + 1), self.num_supports // 2
            left, right = random.permutation(index - distances), random.permutation(index + distances)
            places = np.concatenate([left[:half], right[: self.num_supports - half]])
            return places.clip(min(self._memory), self._seen - 1).tolist()
        before = [frame for frame in self._memory if index - self.window <= frame < index]
        after = [frame for frame in self._memory if index < frame <= index + self.window and self.mode == "offline"]
        share = min(len(before), max(self.num_supports // 2, self.num_supports - len(after)))
        drawn = [*random.permutation(before)[:share], *random.permutation(after)[: self.num_supports - share]]
        return [int(frame) for frame in drawn]

    def _give(self, stop: int) -> list[tuple[int, Detections]]:
        """Detections of the frames up to ``stop``; then forget the frames that no later one needs."""
        due = []
        for index in range(self._done, stop):
            supports = [self._memory[frame] for frame in self.supports(index)]
            detections = self.refine(self._memory[index], supports, self._frame_size)
            if self.close_up is not None:
                detections = self.close_up(self._due_frames.pop(index), detections)
            due.append((index, detections))
            self._done = index + 1
            while next(iter(self._memory)) < self._done - self.window:
                self._memory.popitem(last=False)
        return due
