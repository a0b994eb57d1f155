# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import NamedTuple  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

BOX_UNIT = 0.5  # widths or heights of a first-stage box in which the second stage counts its correction


class DetectionPyramid(nn.Module):
    """Feature pyramid (Lin et al., CVPR 2017) of a plain transformer: its one token map becomes five levels.

    With patches of 16 pixels the levels P3 to P7, of C ``channels`` each, have strides of 8, 16, 32, 64 and 128 pixels.
    """

    def __init__(self, embed_dim: int, channels: int = 256) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2)
        self.downsample = nn.MaxPool2d(2)
        self.fpn = FeaturePyramidNetwork([embed_dim] * 3, channels, LastLevelP6P7(channels, channels))

    def body(self, token_map: torch.Tensor) -> list[torch.Tensor]:
        """The token map ``(F, D, h, w)`` of F frames at double, single and half resolution."""
        return [self.upsample(token_map), token_map, self.downsample(token_map)]

    def forward(self, token_map: torch.Tensor) -> list[torch.Tensor]:
        """P3 to P7, each ``(F, C, h_l, w_l)``, of the token map ``(F, D, h, w)`` of F frames."""
        fine, middle, coarse = self.body(token_map)
        return list(self.fpn({"0": fine, "1": middle, "2": coarse}).values())


class FrameFeatures(NamedTuple):
    """What the first stage knows of N frames at one level of the pyramid; it depends on nothing but each frame."""

    class_features: torch.Tensor  # (B, N, C, h, w)
    box_features: torch.Tensor  # (B, N, C, h, w)
    class_logits: torch.Tensor  # (B, N, K, h, w)
    centerness: torch.Tensor  # (B, N, 1, h, w), logits
    ltrb: torch.Tensor  # (B, N, 4, h, w), distances to the sides of the box in pixels


class LocationPredictions(NamedTuple):
    """What the head says at each of L locations of the five levels together, for B key frames."""

    location: torch.Tensor  # (B, L, 2), x and y in pixels
    stride: torch.Tensor  # (B, L), of its level, in pixels
    class_logits: torch.Tensor  # (B, L, K), first stage
    centerness: torch.Tensor  # (B, L), logits
    ltrb: torch.Tensor  # (B, L, 4), distances to the sides of the box of the first stage, in pixels
    refined_logits: torch.Tensor  # (B, L, K), second stage
    refined_delta: torch.Tensor  # (B, L, 4), correction of the box's sides in halves of its width and height

    @property
    def first_box(self) -> torch.Tensor:
        """Boxes of the first stage, ``(B, L, 4)`` xyxy in pixels, perhaps beyond the frame."""
        left_top, right_bottom = self.ltrb.chunk(2, dim=-1)
        return torch.cat([self.location - left_top, self.location + right_bottom], dim=-1)

    @property
    def refined_box(self) -> torch.Tensor:
        """Boxes of the second stage, likewise."""
        left_top, right_bottom = self.ltrb.chunk(2, dim=-1)
        side = left_top + right_bottom  # width and height
        return self.first_box + self.refined_delta * BOX_UNIT * torch.cat([side, side], dim=-1)


def split_predictions(pred: torch.Tensor) -> LocationPredictions:
    """Name the parts of the detector's output ``(B, 2*K + 12, L)``."""
    classes = (pred.shape[1] - 12) // 2
    location, stride, logits, centerness, *boxes = pred.transpose(1, 2).split([2, 1, classes, 1, 4, classes, 4], dim=2)
    return LocationPredictions(location, stride.squeeze(2), logits, centerness.squeeze(2), *boxes)


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return x * self.scale


class DetectionHead(nn.Module):
    """Two-stage detection head: FCOS on each frame, then spatial-temporal feature transformation of a key frame.

    ``describe`` gives classes, centerness and a box at each location of a frame (Tian et al., FCOS, ICCV 2019;
    centerness from the box tower), ``refine`` adds what support frames show and predicts classes and a correction of
    the box (Wu et al., STFT, MICCAI 2021).

    Args:
        channels: channels C of the pyramid's levels; a multiple of 32.
        num_classes: number K of classes, without background.
        num_convs: convolutions of each of the two towers.
        strides: pixels a cell at each level.
    """

    def __init__(self, channels: int, num_classes: int, num_convs: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = list(strides)
        self.classification = FCOSClassificationHead(channels, 1, num_classes, num_convs)
        self.regression = FCOSRegressionHead(channels, 1, num_convs)
        # Boxes begin with sides 4 cells away, what the levels are meant for; boxes of no size have no gradient.
        nn.init.constant_(self.regression.bbox_reg.bias, 4.0)
        self.scales = nn.ModuleList(Scale() for _ in strides)
        self.class_transformation = SpatialTemporalTransformation(channels)
        self.box_transformation = SpatialTemporalTransformation(channels)
        self.refined_class = nn.Conv2d(channels, num_classes, kernel_size=3, padding=1)
        self.refined_box = nn.Conv2d(channels, 4, kernel_size=3, padding=1)
        for layer in (self.refined_class, self.refined_box):
            nn.init.normal_(layer.weight, std=0.01)
        self.refined_class.bias = nn.Parameter(self.classification.cls_logits.bias.detach().clone())
        self.refined_box.bias = nn.Parameter(torch.zeros(4))

    @torch.jit.export
    def describe(self, pyramid: list[torch.Tensor], num_frames: int) -> list[FrameFeatures]:
        """First stage, of N = ``num_frames`` frames at the levels ``(B * N, C, h, w)``."""
        levels: list[FrameFeatures] = []
        for index, scale in enumerate(self.scales):
            class_features = self.classification.conv(pyramid[index])
            box_features = self.regression.conv(pyramid[index])
            parts = [
                class_features,
                box_features,
                self.classification.cls_logits(class_features),
                self.regression.bbox_ctrness(box_features),
                scale(self.regression.bbox_reg(box_features)).relu() * self.strides[index],
            ]
            parts = [part.unflatten(0, (-1, num_frames)) for part in parts]
            levels.append(FrameFeatures(parts[0], parts[1], parts[2], parts[3], parts[4]))
        return levels

    @torch.jit.export
    def refine(self, frames: list[FrameFeatures]) -> torch.Tensor:
        """Second stage: ``(B, 2*K + 12, L)`` of N frames, the key frame first; see :func:`split_predictions`."""
        outputs = [self.refine_level(level, self.strides[index]).flatten(2) for index, level in enumerate(frames)]
        return torch.cat(outputs, dim=2)

    def refine_level(self, frames: FrameFeatures, stride: int) -> torch.Tensor:
        """Second stage at one level: ``(B, 2*K + 12, h, w)``."""
        extent = box_extent(frames.ltrb.detach(), stride)
        return torch.cat(
            [
                _locations(frames.ltrb, stride),
                frames.class_logits[:, 0],
                frames.centerness[:, 0],
                frames.ltrb[:, 0],
                self.refined_class(self.class_transformation(frames.class_features, extent)),
                self.refined_box(self.box_transformation(frames.box_features, extent)),
            ],
            dim=1,
        )


def _cells(like: torch.Tensor) -> torch.Tensor:
    """The column and the row of each cell, ``(2, h, w)``, of a map ``(..., h, w)``."""
    rows, columns = [torch.arange(size, device=like.device) for size in like.shape[-2:]]
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))


def _locations(like: torch.Tensor, stride: int) -> torch.Tensor:
    """The x, the y and the stride of each location, ``(B, 3, h, w)``, for ``like`` ``(B, N, 4, h, w)``."""
    center = _cells(like) * stride + stride // 2
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision cannot count pixels
    return torch.cat([center, torch.full_like(center[:1], stride)]).to(dtype).expand(like.shape[0], -1, -1, -1)


class SpatialTemporalTransformation(nn.Module):
    """Add what support frames show to the features of a key frame (STFT; Wu et al., MICCAI 2021, section 2).

    A deformable convolution aligns them, guided by how the boxes that each frame predicts differ from the key frame's;
    then each channel of the key frame takes up that channel of the supports, weighted by their similarity to it. Each
    of ``offset_groups`` groups of channels has offsets of its own.
    """

    def __init__(self, channels: int, offset_groups: int = 4) -> None:
        super().__init__()
        self.conv_offset = nn.Conv2d(4, offset_groups * 2 * 9, kernel_size=1, bias=False)
        self.conv_adaption = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        nn.init.normal_(self.conv_offset.weight, std=0.01)
        nn.init.normal_(self.conv_adaption.weight, std=0.01)

    def align(self, features: torch.Tensor, shape_difference: torch.Tensor) -> torch.Tensor:
        """Deformable convolution of features ``(F, C, h, w)``, guided by ``shape_difference`` ``(F, 4, h, w)``."""
        return deformable_convolution(features, self.conv_offset(shape_difference), self.conv_adaption.weight).relu()

    def attention(self, aligned: torch.Tensor) -> torch.Tensor:
        """Weight of each channel of the supports ``(B, N-1, C)`` in aligned features ``(B, N, C, h, w)``, key first."""
        maps = aligned.flatten(3)  # (B, N, C, h*w)
        return ((maps[:, :1] * maps[:, 1:]).sum(dim=3) * maps.shape[3] ** -0.5).softmax(dim=1)

    def forward(self, features: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
        """Transform the features of key frames by those of their supports: ``(B, C, h, w)``.

        Args:
            features: ``(B, N, C, h, w)``, the key frame first; N = 1 is a key frame without support.
            extent: :func:`box_extent` of the boxes that each frame predicts, ``(B, N, 4, h, w)``.
        """
        shape_difference = torch.cat([extent[:, :1], extent[:, :1] - extent[:, 1:]], dim=1)
        aligned = self.align(features.flatten(0, 1), shape_difference.flatten(0, 1)).reshape(features.shape)
        return aligned[:, 0] + (self.attention(aligned)[..., None, None] * aligned[:, 1:]).sum(dim=1)


def box_extent(ltrb: torch.Tensor, stride: int) -> torch.Tensor:
    """Where the box of each location lies relative to it, in cells of ``stride`` pixels, kept inside the map.

    From distances ``(..., 4, h, w)`` to its left, top, right and bottom in pixels it makes x1 and y1 (negative to the
    left and upwards), then x2 and y2, all from the location, ``(..., 4, h, w)``.
    """
    cells = _cells(ltrb)
    last, location = cells[:, -1:, -1:], cells.to(ltrb.dtype) + (stride // 2) / stride
    left_top, right_bottom = (ltrb / stride).chunk(2, dim=-3)
    corners = [location - left_top, location + right_bottom]
    return torch.cat([corner.clamp(min=0).minimum(last) - location.minimum(last) for corner in corners], dim=-3)


def deformable_convolution(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Deformable 3x3 convolution ``(F, D, h, w)`` (Dai et al., ICCV 2017): each tap reads the map at its own place.

    The values are those of ``torchvision.ops.deform_conv2d`` with a padding of 1; one bilinear sampling and one 1x1
    convolution are several times as fast on a CPU, above all backwards.

    Args:
        x: ``(F, C, h, w)``, zero beyond its borders.
        offset: ``(F, groups * 9 * 2, h, w)``, for each tap of each group of channels its way down and to the right, in
            cells.
        weight: ``(D, C, 3, 3)``.
    """
    frames, channels, height, width = x.shape
    groups = offset.shape[1] // 18
    offset = offset.reshape(frames * groups, 3, 3, 2, height, width)
    tap = torch.arange(-1, 2, device=x.device).reshape(3, 1, 1)
    y = offset[:, :, :, 0] + tap.unsqueeze(1) + torch.arange(height, device=x.device).unsqueeze(1)
    x_place = offset[:, :, :, 1] + tap + torch.arange(width, device=x.device)  # (F * groups, 3, 3, h, w)
    grid = torch.stack([(2 * x_place + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    sampled = F.grid_sample(
        x.reshape(frames * groups, channels // groups, height, width),
        grid.reshape(frames * groups, 9 * height, width, 2),
        align_corners=False,
    )
    return F.conv2d(sampled.reshape(frames, channels * 9, height, width), weight.reshape(-1, channels * 9, 1, 1))
