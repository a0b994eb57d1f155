# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Function for ``cvat-cli task auto-annotate``: a bundle annotates the frames of a task on the user's machine.

The client sends the frames of a task in order, so that the model sees each frame with those before it. It takes shapes
and tags but no tracks: the number of the polyp goes to the attribute ``track`` of its shapes, of which ``from_cvat``
makes tracks; ``python -m endofm_monai.apps.cvat annotate`` writes tracks.

    cvat-cli task auto-annotate TASK --function-file function.py -p bundle=str:bundle/endofm_polyp_detection
"""

import os
from collections.abc import Sequence
from typing import Any

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.models import AttributeValRequest

from endofm_monai.apps.cvat.answers import FrameAnnotator, open_annotator
from endofm_monai.data import ClipInfo, as_shown, natural_key
from endofm_monai.formats.annotations import TRACK


class VideoFunction:
    """CVAT's detection function that remembers the frames before.

    A new video begins with a frame of another folder or size, or whose name comes before that of the last one; all have
    ``fps`` frames a second. The predictor of the ``annotator`` is an online one.
    """

    def __init__(self, annotator: FrameAnnotator, fps: float = 30.0) -> None:
        self.annotator, self.fps = annotator, fps
        attributes = [] if annotator.kind == "tag" else [cvataa.text_attribute_spec(TRACK, 0)]
        labels = [
            cvataa.label_spec(name, number, type=annotator.kind, attributes=attributes)
            for name, number in annotator.labels.items()
        ]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)
        self._last: tuple[Any, ...] = ()

    def detect(self, context: cvataa.DetectionFunctionContext, image: Any) -> Sequence[Any]:
        """Annotate the next frame, a PIL image."""
        annotator, name, image = self.annotator, context.frame_name, as_shown(image)
        now = (os.path.dirname(name), image.size, natural_key(name))
        if now[:2] != self._last[:2] or now[2] <= self._last[2]:
            annotator.begin(ClipInfo(1, self.fps, image.height, image.width, 1 / self.fps))
        self._last = now
        found = annotator.push(image, context.conf_threshold)
        if annotator.kind == "tag":
            return [cvataa.tag(annotator.labels[each.label]) for each in found]
        draw = cvataa.rectangle if annotator.kind == "rectangle" else cvataa.polygon
        numbers = ([AttributeValRequest(spec_id=0, value=str(each.track))] for each in found)
        drawn = zip(found, numbers, strict=True)
        return [draw(annotator.labels[each.label], list(each.points), attributes=number) for each, number in drawn]


def create(bundle: str, device: str = "cpu", fps: float = 30.0, **options: Any) -> VideoFunction:
    """Make the function of ``-p`` parameters; see :class:`endofm_monai.apps.cvat.answers.FrameAnnotator`."""
    return VideoFunction(open_annotator(bundle, device, **options), fps)
