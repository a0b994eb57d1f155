# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Function for ``cvat-cli task auto-annotate``: a bundle annotates the frames of a task on the user's machine.

The client sends the frames of a task in order, so that the model sees each frame with those before it. It takes shapes
and tags but no tracks: the number of the polyp goes to the attribute ``track`` of its shapes, of which
:func:`endofm_monai.apps.cvat.join_tracks` makes tracks; ``python -m endofm_monai.apps.cvat annotate`` writes tracks.

    cvat-cli task auto-annotate TASK --function-file function.py -p bundle=str:bundle/endofm_polyp_detection
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import torch
from cvat_sdk import models

from endofm_monai.apps.cvat.answers import FrameAnnotator
from endofm_monai.data.readers.paths import natural_key
from endofm_monai.formats.annotations import TRACK
from endofm_monai.inferers.frame_models import open_frame_model

__all__ = ["VideoFunction", "create"]


class VideoFunction:
    """CVAT's detection function that remembers the frames before.

    A new video begins with a frame of another folder or size, or whose name comes before that of the last one.

    Args:
        annotator: makes shapes and tags of what the model says.
    """

    def __init__(self, annotator: FrameAnnotator) -> None:
        self.annotator = annotator
        attributes = [] if annotator.kind == "tag" else [cvataa.text_attribute_spec(TRACK, 0)]
        labels = [
            cvataa.label_spec(name, number, type=annotator.kind, attributes=attributes)
            for name, number in annotator.numbers.items()
        ]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)
        self._last: tuple[Any, ...] = ()
        self._videos = 0

    def detect(self, context: cvataa.DetectionFunctionContext, image: Any) -> Sequence[Any]:
        """Annotate the next frame, a PIL image."""
        name = context.frame_name
        now = (os.path.dirname(name), image.size, natural_key(name))
        if now[:2] != self._last[:2] or now[2] <= self._last[2]:
            self._videos += 1
            self.annotator.begin()
        self._last = now
        frame = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        answer = self.annotator.model.push(frame, self._videos)
        numbers = self.annotator.numbers
        found = self.annotator.draw(answer, context.conf_threshold)
        if self.annotator.kind == "tag":
            return [cvataa.tag(numbers[each.label]) for each in found]
        draw = cvataa.rectangle if self.annotator.kind == "rectangle" else cvataa.polygon
        return [
            draw(
                numbers[each.label],
                list(each.points),
                attributes=[models.AttributeValRequest(spec_id=0, value=str(each.track))],
            )
            for each in found
        ]


def create(
    bundle: str,
    device: str = "cpu",
    fps: float = 30.0,
    iou: float = 0.3,
    max_gap: int = 5,
    tolerance: float = 1.0,
    min_area: int = 64,
) -> VideoFunction:
    """Make the function of ``-p`` parameters; see :class:`endofm_monai.apps.cvat.answers.FrameAnnotator`."""
    model = open_frame_model(bundle, device, fps)
    return VideoFunction(FrameAnnotator(model, iou, max_gap, tolerance, min_area))
