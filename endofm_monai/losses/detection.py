# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from endofm_monai.networks.blocks import split_predictions
from endofm_monai.networks.blocks.detection_head import BOX_UNIT

CENTER_RADIUS = 1.5  # of the part of a box in which locations are positive, in cells
SMALLEST, LARGEST = 4, 8  # distance of a location from a box's farthest side, in cells
MIN_IOU = 0.1  # of a first-stage box that the second stage shall correct
MIN_BOX_SIDE = 1.0  # pixels; first-stage boxes may have no area
MOMENTUM = 0.9  # of the mean numbers of positives


def first_stage_targets(
    location: torch.Tensor, stride: torch.Tensor, box: torch.Tensor, label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each location of a frame shall predict in the first stage (FCOS with center sampling).

    A location ``(L, 2)``, whose level has cells of ``stride`` ``(L,)`` pixels, is positive for a box ``(G, 4)`` when it
    lies in the box, within 1.5 cells of its center, and the box's farthest side is within the range of the level (4 to
    8 cells; the first and the last level have no limit on one side). Among several boxes the smallest wins.

    Returns:
        labels ``(L,)``, 0 for background, and the distances ``(L, 4)`` to the sides of the box in pixels.
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

    A location is positive for the box that its first-stage box ``(L, 4)`` overlaps most, if that is by an IoU of at
    least 0.1. Like the published code, the IoU counts pixels, to which a box's last row and column belong.

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


class DetectionLoss(nn.Module):
    """The five losses of the two-stage detector, summed with equal weights (published training).

    ================ ======================================================== ============================
    term             definition                                               divided by
    ================ ======================================================== ============================
    ``cls``          focal loss of the first stage's classes, all locations   positives of the first stage
    ``reg``          GIoU loss of its boxes, weighted by the true centerness  sum of the true centerness
    ``centerness``   binary cross-entropy of the centerness                   positives of the first stage
    ``stft_cls``     focal loss of the second stage's classes, all locations  positives of the second stage
    ``stft_reg``     smooth L1 loss of its corrections                        positives of the second stage
    ================ ======================================================== ============================

    Sums and divisors (at least 1) run over the batch; a trainer's mean of several processes is the loss of all their
    clips. Frames without a box teach both classifiers what is no polyp. A batch without any positive has the mean
    divisors of former batches: divided by 1, one frame without a polyp would weigh as much as the tens of locations of
    all polyps together. The state dict holds this mean, in ``usual_positives``.
    """

    usual_positives: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("usual_positives", torch.zeros(2))  # of both stages; 0 until there was one

    def forward(self, pred: torch.Tensor, targets: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Sum of the five terms."""
        share = len(pred) * idist.get_world_size() / idist.all_reduce(len(pred))  # by which the trainer multiplies it
        return torch.stack(list(self.terms(pred, targets).values())).sum() / share

    def classified(self, boxes: Sequence[torch.Tensor]) -> list[bool]:
        """Which frames, given by their boxes, teach the classifiers."""
        return [True] * len(boxes)

    def terms(self, pred: torch.Tensor, targets: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The terms by name.

        Args:
            pred: output of :class:`endofm_monai.networks.nets.EndoFMDetector` for B key frames, ``(B, 2*K + 12, L)``.
            targets: for each key frame ``box`` ``(G, 4)``, xyxy in pixels, and ``label`` ``(G,)``, from 1 to K.
        """
        if len(targets) != len(pred):
            raise ValueError(f"`targets` must be one a key frame, but got {len(targets)} for {len(pred)} frames.")
        out = split_predictions(pred.to(torch.promote_types(pred.dtype, torch.float32)))
        boxes = [target["box"].to(pred.device, out.location.dtype) for target in targets]
        labels = [target["label"].to(pred.device) for target in targets]
        first = map(first_stage_targets, out.location, out.stride, boxes, labels)
        second = map(second_stage_targets, out.first_box.detach(), boxes, labels)
        first_label, ltrb = map(torch.stack, zip(*first, strict=True))
        second_label, delta = map(torch.stack, zip(*second, strict=True))
        positive, refined = first_label > 0, second_label > 0
        ltrb, delta = ltrb[positive], delta[refined]
        left_top, right_bottom = ltrb.split(2, dim=1)
        central = torch.minimum(left_top, right_bottom) / torch.maximum(left_top, right_bottom)
        centerness = central.prod(dim=1).clamp(min=0).sqrt()  # from 0, at a border of the box, to 1
        counts = torch.stack([positive.sum(), refined.sum(), centerness.sum()]).detach()
        counts = idist.all_reduce(counts) / idist.get_world_size()
        first_count, second_count = self._divisors(counts[:2])

        sign = ltrb.new_tensor([-1, -1, 1, 1])
        giou = generalized_box_iou_loss(out.ltrb[positive] * sign, ltrb * sign)
        correction = F.smooth_l1_loss(out.refined_delta[refined], delta, reduction="sum", beta=0.11)
        center = F.binary_cross_entropy_with_logits(out.centerness[positive], centerness, reduction="sum")
        taught = self.classified(boxes)
        return {
            "cls": _focal_loss(out.class_logits[taught], first_label[taught]) / first_count,
            "reg": (giou * centerness).sum() / counts[2].clamp(min=1),
            "centerness": center / first_count,
            "stft_cls": _focal_loss(out.refined_logits[taught], second_label[taught]) / second_count,
            "stft_reg": correction / second_count,
        }

    def _divisors(self, positives: torch.Tensor) -> torch.Tensor:
        """Divisors of the two stages for the numbers of their positives, of which a running mean is kept."""
        positives = convert_to_tensor(positives, track_meta=False)  # else a checkpoint would hold metadata of boxes
        usual = self.usual_positives.to(positives)
        seen = torch.where(usual > 0, MOMENTUM * usual + (1 - MOMENTUM) * positives, positives)
        self.usual_positives = torch.where(positives > 0, seen, usual)
        return torch.where(positives > 0, positives, usual).clamp(min=1)


def _focal_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Sum of the focal losses of ``logits`` ``(B, L, K)`` for labels ``(B, L)``, 0 being background."""
    one_hot = F.one_hot(label, logits.shape[2] + 1)[..., 1:].to(logits.dtype)
    return sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2.0, reduction="sum")
