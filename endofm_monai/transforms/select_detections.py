# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import ClassVar

import torch
from monai.transforms import Transform
from monai.utils import TransformBackends
from torchvision.ops import batched_nms

from endofm_monai.networks.blocks import LocationPredictions, split_predictions

__all__ = ["SelectDetections"]


class SelectDetections(Transform):
    """Choose detections among the predictions of all locations (published rules and thresholds).

    A location and class whose first-stage score, the geometric mean of class probability and centerness, is above
    ``score_threshold`` is a candidate. Its score is the geometric mean of the first and the second stage's; its box is
    the corrected one. The best ``candidates`` of each level go through non-maximum suppression by class.

    Args:
        score_threshold: smallest first-stage score.
        nms_threshold: largest IoU of two detections of one class.
        candidates: number of candidates of each level.
        max_detections: number of detections of a frame.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        candidates: int = 1000,
        max_detections: int = 300,
    ) -> None:
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.candidates = candidates
        self.max_detections = max_detections

    def __call__(self, pred: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Choose.

        Args:
            pred: output ``(B, 2*K + 12, L)`` of :class:`endofm_monai.networks.nets.EndoFMDetector`.

        Returns:
            for each key frame ``box`` ``(D, 4)``, xyxy in pixels of the network's input and perhaps beyond it,
            ``label`` ``(D,)``, from 1 to K, and ``label_scores`` ``(D,)``, best first.
        """
        out = split_predictions(pred.float())
        return [self._select(LocationPredictions(*(part[frame] for part in out))) for frame in range(len(pred))]

    def _select(self, out: LocationPredictions) -> dict[str, torch.Tensor]:
        first = (out.class_logits.sigmoid() * out.centerness.sigmoid().unsqueeze(1)).sqrt()  # (L, K)
        score = (first * out.refined_logits.sigmoid()).masked_fill(first <= self.score_threshold, 0)
        refined_box = out.refined_box
        boxes, scores, labels = [], [], []
        for stride in out.stride.unique():
            level = (out.stride == stride).nonzero().squeeze(1)
            best, index = score[level].flatten().topk(min(self.candidates, len(level) * score.shape[1]))
            boxes.append(refined_box[level[index[best > 0] // score.shape[1]]])
            scores.append(best[best > 0].sqrt())
            labels.append(index[best > 0] % score.shape[1] + 1)
        box, label_scores, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        kept = batched_nms(box, label_scores, label, self.nms_threshold)[: self.max_detections]
        return {"box": box[kept], "label": label[kept], "label_scores": label_scores[kept]}
