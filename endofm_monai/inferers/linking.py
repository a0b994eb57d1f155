# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass, field

import torch
from monai.data.box_utils import box_iou
from scipy.optimize import linear_sum_assignment

from endofm_monai.inferers.predictor import Answer


@dataclass
class BoxTrack:
    """A polyp in successive frames."""

    label: int  # its class, from 1 on
    boxes: dict[int, torch.Tensor] = field(default_factory=dict)  # by frame, in order; where it was found


class BoxLinker:
    """Links the detections of a video's frames, as they come, to tracks.

    A detection goes on with a track of its class; which with which is decided for all of a frame at once, such that the
    sum of the IoU of each with the last box of its track is largest.

    Args:
        iou: smallest IoU with the track's last box.
        max_gap: frames in a row in which a track's polyp may be missed.

    Example::

        linker = BoxLinker(max_gap=5)
        for frame, answer in predictor("colonoscopy.mp4"):
            numbers = linker.push(answer)  # of the tracks, one a detection
    """

    def __init__(self, iou: float = 0.3, max_gap: int = 0) -> None:
        self.iou = iou
        self.max_gap = max_gap
        self.tracks: list[BoxTrack] = []  # in the order in which they begin
        self._open: list[int] = []
        self._frame = 0

    def push(self, detections: Answer) -> list[int]:
        """For each detection of the next frame, ``box`` and ``label``, the number of its track in ``tracks``."""
        boxes, labels = detections["box"], detections["label"]
        numbers = [-1] * len(boxes)
        oldest = self._frame - 1 - self.max_gap
        self._open = [number for number in self._open if next(reversed(self.tracks[number].boxes)) >= oldest]
        if self._open and numbers:
            tracks = [self.tracks[number] for number in self._open]
            last = torch.stack([track.boxes[next(reversed(track.boxes))] for track in tracks])
            overlap = box_iou(boxes.float(), last.float())
            overlap[labels[:, None].cpu() != torch.tensor([track.label for track in tracks])] = 0
            overlap[overlap < self.iou] = 0
            for row, column in zip(*linear_sum_assignment(overlap.numpy(), maximize=True), strict=True):
                if overlap[row, column] > 0:
                    numbers[row] = self._open[column]
        for place, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            if numbers[place] < 0:
                numbers[place] = len(self.tracks)
                self._open.append(numbers[place])
                self.tracks.append(BoxTrack(int(label)))
            self.tracks[numbers[place]].boxes[self._frame] = box
        self._frame += 1
        return numbers
