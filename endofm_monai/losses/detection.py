# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import distributed, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from endofm_monai.networks.blocks import split_predictions
from endofm_monai.networks.blocks.detection_head import BOX_UNIT

__all__ = ["DetectionLoss", "first_stage_targets", "second_stage_targets"]

CENTER_RADIUS = 1.5  # of the part of a box in which locations are positive, in cells
SMALLEST, LARGEST = 4, 8  # distances to a box's farthest side that a level is for, in cells
MIN_IOU = 0.1  # of a first-stage box that the second stage shall correct
MIN_BOX_SIDE = 1.0  # pixels; first-stage boxes may have no area


def first_stage_targets(
    location: torch.Tensor, stride: torch.Tensor, box: torch.Tensor, label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each location of a frame shall predict in the first stage (FCOS with center sampling).

    A location is positive for a box when it lies in the box, within 1.5 cells of its center, and the box's farthest
    side is within the range of the location's level (4 to 8 cells; the first and the last level have no limit on one
    side). Among several boxes the smallest wins.

    Args:
        location: ``(L, 2)``, x and y in pixels.
        stride: ``(L,)``, pixels a cell of the location's level.
        box: ``(G, 4)``, xyxy in pixels.
        label: ``(G,)``, from 1 to K.

    Returns:
        labels ``(L,)``, 0 for background, and the distances ``(L, 4)`` to the sides of the box in pixels, which mean
        nothing for background.
    """
    if len(box) == 0:
        return torch.zeros_like(stride, dtype=torch.long), location.new_zeros(len(location), 4)
    ltrb = _sides(location, box)
    center = (box[:, :2] + box[:, 2:]) / 2
    reach = CENTER_RADIUS * stride[:, None, None]  # (L, 1, 1)
    around = torch.cat([torch.maximum(center - reach, box[:, :2]), torch.minimum(center + reach, box[:, 2:])], dim=2)
    inside = _sides(location, around).amin(dim=2) > 0
    farthest = ltrb.amax(dim=2)
    lower = (SMALLEST * stride).masked_fill(stride == stride.amin(), -1)
    upper = (LARGEST * stride).masked_fill(stride == stride.amax(), torch.inf)
    in_range = (farthest >= lower[:, None]) & (farthest <= upper[:, None])

    area = (box[:, 2:] - box[:, :2] + 1).prod(dim=1).expand(inside.shape)
    smallest, index = area.masked_fill(~(inside & in_range), torch.inf).min(dim=1)
    return label[index] * (smallest < torch.inf), ltrb[torch.arange(len(index), device=index.device), index]


def second_stage_targets(
    first_box: torch.Tensor, box: torch.Tensor, label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each location of a frame shall predict in the second stage: how to correct its first-stage box.

    A location is positive for the box that its first-stage box overlaps most, if that is by an IoU of at least 0.1.
    Like the published code, the IoU counts pixels, to which a box's last row and column belong.

    Args:
        first_box: ``(L, 4)``, xyxy in pixels.
        box: ``(G, 4)``, likewise.
        label: ``(G,)``, from 1 to K.

    Returns:
        labels ``(L,)``, 0 for background, and the corrections ``(L, 4)`` of the sides in halves of the first-stage
        box's width and height.
    """
    if len(box) == 0:
        return torch.zeros(len(first_box), dtype=torch.long, device=box.device), torch.zeros_like(first_box)
    corner = torch.maximum(first_box[:, None, :2], box[:, :2])
    overlap = (torch.minimum(first_box[:, None, 2:], box[:, 2:]) - corner + 1).clamp(min=0).prod(dim=2)  # (L, G)
    first_area, area = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1) for boxes in (first_box, box))
    best, index = (overlap / (first_area[:, None] + area - overlap)).max(dim=1)
    side = (first_box[:, 2:] - first_box[:, :2]).clamp(min=MIN_BOX_SIDE).repeat(1, 2)
    return label[index] * (best >= MIN_IOU), (box[index] - first_box) / (BOX_UNIT * side)


def _sides(location: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Distances ``(L, G, 4)`` from locations ``(L, 2)`` to the sides of boxes ``(G, 4)`` or ``(L, G, 4)``."""
    return torch.cat([location[:, None] - box[..., :2], box[..., 2:] - location[:, None]], dim=2)


MOMENTUM = 0.9  # of the mean numbers of positives


class DetectionLoss(nn.Module):
    """The five losses of the two-stage detector, summed with equal weights (published training).

    ======================= ======================================================== ==================================
    term                    definition                                               divided by
    ======================= ======================================================== ==================================
    ``cls``                 focal loss of the first stage's classes, all locations   positives of the first stage
    ``reg``                 GIoU loss of its boxes, weighted by the true centerness  sum of the true centerness
    ``centerness``          binary cross-entropy of the centerness                   positives of the first stage
    ``stft_cls``            focal loss of the second stage's classes, all locations  positives of the second stage
    ``stft_reg``            smooth L1 loss of its corrections                        positives of the second stage
    ======================= ======================================================== ==================================

    Sums and divisors (at least 1) run over the batch; divisors are averaged over processes. A batch without any
    positive has the mean divisors of former batches: divided by 1, one frame without a polyp would weigh as much as the
    tens of locations of all polyps together. The state dict holds this mean, in ``usual_positives``.

    Args:
        reference_skip_negatives: learn nothing from frames without a box, as the published training does; by default
            they teach both classifiers what is no polyp.
    """

    usual_positives: torch.Tensor

    def __init__(self, reference_skip_negatives: bool = False) -> None:
        super().__init__()
        self.reference_skip_negatives = reference_skip_negatives
        self.register_buffer("usual_positives", torch.zeros(2))  # of both stages; 0 until there was one

    def forward(self, pred: torch.Tensor, targets: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Sum of the five terms, see :meth:`terms`."""
        return torch.stack(list(self.terms(pred, targets).values())).sum()

    def terms(self, pred: torch.Tensor, targets: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The terms by name.

        Args:
            pred: output of :class:`endofm_monai.networks.nets.EndoFMDetector` for B key frames, ``(B, 2*K + 12, L)``.
            targets: for each key frame ``box`` ``(G, 4)``, xyxy in pixels, and ``label`` ``(G,)``, from 1 to K.

        Raises:
            ValueError: when there are not as many targets as key frames.
        """
        if len(targets) != len(pred):
            raise ValueError(f"`targets` must be one a key frame, but got {len(targets)} for {len(pred)} frames.")
        if self.reference_skip_negatives:
            pred = pred[[len(target["box"]) > 0 for target in targets]]
            targets = [target for target in targets if len(target["box"]) > 0]
        out = split_predictions(pred.to(torch.promote_types(pred.dtype, torch.float32)))
        boxes = [target["box"].to(pred.device, out.location.dtype) for target in targets]
        labels = [target["label"].to(pred.device) for target in targets]
        first = [first_stage_targets(*frame) for frame in zip(out.location, out.stride, boxes, labels, strict=True)]
        second = [second_stage_targets(*frame) for frame in zip(out.first_box.detach(), boxes, labels, strict=True)]
        nothing = out.stride.new_zeros(0, out.stride.shape[1])
        first_label = torch.stack([label for label, _ in first]) if first else nothing.long()
        second_label = torch.stack([label for label, _ in second]) if second else nothing.long()
        positive, refined = first_label > 0, second_label > 0

        ltrb = torch.stack([sides for _, sides in first])[positive] if first else out.ltrb[positive]
        delta = torch.stack([sides for _, sides in second])[refined] if second else out.refined_delta[refined]
        centerness = _centerness(ltrb)
        first_count, centerness_sum, second_count = _mean_over_processes(
            positive.sum(), centerness.sum(), refined.sum()
        )
        first_count, second_count = self._divisors(torch.stack([first_count, second_count]))

        sign = ltrb.new_tensor([-1, -1, 1, 1])
        giou = generalized_box_iou_loss(out.ltrb[positive] * sign, ltrb * sign)
        correction = F.smooth_l1_loss(out.refined_delta[refined], delta, reduction="sum", beta=0.11)
        center = F.binary_cross_entropy_with_logits(out.centerness[positive], centerness, reduction="sum")
        return {
            "cls": _focal_loss(out.class_logits, first_label) / first_count,
            "reg": (giou * centerness).sum() / centerness_sum.clamp(min=1),
            "centerness": center / first_count,
            "stft_cls": _focal_loss(out.refined_logits, second_label) / second_count,
            "stft_reg": correction / second_count,
        }

    def _divisors(self, positives: torch.Tensor) -> torch.Tensor:
        """Divisors of the two stages for the numbers of their positives, of which a running mean is kept."""
        self.usual_positives = self.usual_positives.to(positives)
        seen = torch.where(
            self.usual_positives > 0, MOMENTUM * self.usual_positives + (1 - MOMENTUM) * positives, positives
        )
        divisors = torch.where(positives > 0, positives, self.usual_positives).clamp(min=1)
        self.usual_positives = torch.where(positives > 0, seen, self.usual_positives)
        return divisors


def _centerness(ltrb: torch.Tensor) -> torch.Tensor:
    """How central locations ``(P, 4)`` lie in their boxes, from 0 (at the border) to 1."""
    left, top, right, bottom = ltrb.unbind(1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).clamp(min=0).sqrt()


def _focal_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Sum of the focal losses of ``logits`` ``(B, L, K)`` for labels ``(B, L)``, 0 being background."""
    one_hot = F.one_hot(label, logits.shape[2] + 1)[..., 1:].to(logits.dtype)
    return sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2.0, reduction="sum")


def _mean_over_processes(*sums: torch.Tensor) -> torch.Tensor:
    means = torch.stack([value.detach().to(torch.promote_types(value.dtype, torch.float32)) for value in sums])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(means)
        means = means / distributed.get_world_size()
    return means
