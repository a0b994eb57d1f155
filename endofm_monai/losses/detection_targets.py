# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch

from endofm_monai.networks.blocks.detection_head import BOX_UNIT

__all__ = ["first_stage_targets", "second_stage_targets"]

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
