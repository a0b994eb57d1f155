# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monailabel.interfaces.tasks.infer_v2 import InferType

from endofm_monai.apps.active_learning import class_entropy
from endofm_monai.apps.monai_label.lib.clip_context import Clip
from endofm_monai.apps.monai_label.lib.infers.task import EndoInferTask
from endofm_monai.data import WindowPlan, cover_videos, open_clip, sample_videos

__all__ = ["Classification"]


class Classification(EndoInferTask):
    """Gives the probabilities of the classes: of the window with a frame in its middle, or of a whole video.

    A video without ``frame`` is covered by windows, whose mean it is, as in the bundle's inference.
    """

    infer_type = InferType.CLASSIFICATION

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's."""
        return self.bundle.get("preprocessing").transforms

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's."""
        return [self.bundle.get("postprocessing")]

    def _answer(self, clip: Clip, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        run = super(EndoInferTask, self).__call__
        parts = [run({**request, **item, "skip_writer": True})[1] for item in self._inputs(clip)]
        mean = torch.stack([part[self.output_label_key] for part in parts]).mean(dim=0)
        if request.get("skip_writer"):
            return None, {**parts[0], self.output_label_key: mean}
        scores = zip(self.labels, mean.tolist(), strict=True)
        prediction = [{"idx": index, "label": name, "score": score} for index, (name, score) in enumerate(scores)]
        return None, {"prediction": prediction, "label_names": self.labels}

    def _inputs(self, clip: Clip) -> list[dict[str, Any]]:
        sampling = {key: self.bundle.get(key) for key in ("num_frames", "sampling_rate")}
        crops = self.bundle.get("num_crops")
        if clip.frame is None:
            return cover_videos(
                [{"image": clip.source}], **sampling, overlap=self.bundle.get("overlap"), num_crops=crops
            )
        with open_clip(clip.source) as reader:
            length = WindowPlan(**sampling).length(reader.probe())
        start = min(max(0, clip.frame - length // 2), clip.length - length)
        return sample_videos([{"image": clip.part(start, start + length)}], 1, crops)

    def _uncertainty(self, data: dict[str, Any]) -> float:
        return float(class_entropy(data[self.output_label_key][None], self.bundle.get("multi_label"))[0])
