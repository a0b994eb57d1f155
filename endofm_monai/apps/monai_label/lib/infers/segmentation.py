# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.transform.post import FindContoursd
from monailabel.transform.writer import PolygonWriter
from PIL import Image

from endofm_monai.apps.active_learning import mask_entropy
from endofm_monai.apps.monai_label.lib.clip_context import Clip
from endofm_monai.apps.monai_label.lib.infers.task import EndoInferTask, wanted_frame
from endofm_monai.data import chunk_frames

__all__ = ["Segmentation"]

MIN_POLYGON_AREA = 16  # pixels


class Segmentation(EndoInferTask):
    """Gives the mask of a frame as PNG of the frame's size, pixels being numbers of classes, and its polygons.

    A mask is that of the bundle's inference on the whole clip: the network gets all windows that hold the frame.
    ``output`` in a request asks for another file: ``"dsa"`` (JSON) or ``"asap"`` (XML, for QuPath).
    """

    infer_type = InferType.SEGMENTATION

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's, but for those that drop items."""
        return self.bundle.get("pre_transforms").transforms

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's, then from the clip to the frame, and to polygons."""
        contours = FindContoursd(self.output_label_key, labels=self.labels, min_poly_area=MIN_POLYGON_AREA)
        return [self.bundle.get("postprocessing"), self._keep_frame, contours]

    def writer(self, data: Any, extension: Any = None, dtype: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Write what ``output`` asks for, by default the mask."""
        data.setdefault("output", "mask")
        data.setdefault(self.output_json_key, {"annotation": {"elements": []}})  # where nothing is found
        file, result = PolygonWriter(self.output_label_key, self.output_json_key)(data)
        if file is None:
            handle, file = tempfile.mkstemp(".png")
            with os.fdopen(handle, "wb") as stream:
                Image.fromarray(np.ascontiguousarray(data[self.output_label_key].T)).save(stream, "PNG")
        return file, result

    def _inputs(self, clip: Clip) -> list[dict[str, Any]]:
        frame = wanted_frame(clip)
        window, stride = self.bundle.get("window"), self.bundle.get("stride")
        chunks = chunk_frames(clip.length, 2 * window, window, stride)
        start, stop = next((start, stop) for start, stop, first, end in chunks if first <= frame < end)
        return [{"image": clip.part(start, stop), "key_frame": frame - start}]

    def _keep_frame(self, data: dict[str, Any]) -> dict[str, Any]:
        """Masks ``(1, T, H, W)`` become that of the frame, ``(W, H)``: MONAI Label counts x first."""
        frame = data["key_frame"]
        mask = data[self.output_label_key][0, frame].cpu().numpy().T
        return {**data, self.output_label_key: mask, "probability": data["probability"][:, frame]}

    def _uncertainty(self, data: dict[str, Any]) -> float:
        return float(mask_entropy(data["probability"])[0])
