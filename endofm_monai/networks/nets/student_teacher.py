# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from endofm_monai.networks.nets.endofm import EndoFM


class ProjectionHead(nn.Module):
    """Projection head of the pre-training: an MLP, then cosines to ``num_prototypes`` learned directions.

    Features go through a 3-layer GELU MLP to a bottleneck, are L2-normalized, and meet a weight-normalized linear
    layer whose norms are fixed at 1, so that the logits are cosines in [-1, 1]. The cosines are always computed in
    float32: a temperature of 0.04 multiplies their rounding error by 25.

    Args:
        embed_dim: width D of the class token.
        num_prototypes: number K of logits.
        hidden_dim: width of the MLP's hidden layers.
        bottleneck_dim: width of the normalized features.
    """

    def __init__(self, embed_dim: int, num_prototypes: int, hidden_dim: int = 2048, bottleneck_dim: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, num_prototypes, bias=False))
        norms = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(norms)
        norms.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cosines ``(..., K)`` in float32 of class tokens ``(..., D)``."""
        bottleneck = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.last_layer(F.normalize(bottleneck.float(), dim=-1))


class ProjectionNetwork(nn.Module):
    """A backbone from clips ``(B, C, T, H, W)`` to class tokens, and its projection head, for views of any shapes."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits ``(V, B, K)`` of V views, each ``(B, C, T, H, W)``; views of equal shape run as one batch."""
        groups: dict[torch.Size, list[int]] = {}
        for index, view in enumerate(views):
            groups.setdefault(view.shape, []).append(index)
        class_tokens: dict[int, torch.Tensor] = {}
        for indices in groups.values():
            features = self.backbone(torch.cat([views[index] for index in indices]))
            class_tokens.update(zip(indices, features.chunk(len(indices)), strict=True))
        return self.head(torch.stack([class_tokens[index] for index in range(len(views))]))


class StudentTeacher(nn.Module):
    """Student and teacher of the self-supervised pre-training, as one network (paper, section 2.2).

    The teacher starts as a copy of the student, takes no gradient, is always in evaluation mode, and follows the
    student by :meth:`update_teacher`. Being one module, both are wrapped, aggregated and saved together.

    Args:
        backbone: the backbone to pre-train; becomes the student's.
        num_prototypes: number K of logits of the projection head.
        hidden_dim: see :class:`ProjectionHead`; ``bottleneck_dim`` likewise.
        num_global_views: the first views, which the teacher sees too.
        teacher_momentum: share of itself that the teacher keeps at an update; an attribute that a schedule may set.
    """

    def __init__(
        self,
        backbone: EndoFM,
        num_prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_global_views: int = 2,
        teacher_momentum: float = 0.996,
    ) -> None:
        super().__init__()
        head = ProjectionHead(backbone.embed_dim, num_prototypes, hidden_dim, bottleneck_dim)
        self.num_global_views = num_global_views
        self.teacher_momentum = teacher_momentum
        self.student = ProjectionNetwork(backbone, head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> StudentTeacher:
        """Set the student's mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the student on all V normalized views ``(B, C, T, H, W)`` and the teacher on the global ones, the first.

        Returns:
            student logits ``(V, B, K)`` and teacher logits ``(num_global_views, B, K)``, the latter without gradient.
        """
        with torch.no_grad():
            teacher_logits = self.teacher(views[: self.num_global_views])
        return self.student(views), teacher_logits

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move every teacher parameter to ``m * teacher + (1 - m) * student``, m being the ``teacher_momentum``."""
        teacher = [parameter.data for parameter in self.teacher.parameters()]
        student = [parameter.data for parameter in self.student.parameters()]
        torch._foreach_mul_(teacher, self.teacher_momentum)
        torch._foreach_add_(teacher, student, alpha=1 - self.teacher_momentum)


class TeacherBackbone(nn.Module):
    """A backbone under the names that it has as the teacher's in :class:`StudentTeacher`, and nothing else of that.

    So an evaluation takes its part of the weights of a whole pre-training, as federated learning hands them out.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.teacher = nn.ModuleDict({"backbone": backbone})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class tokens ``(B, D)`` of normalized clips ``(B, C, T, H, W)``."""
        return self.teacher["backbone"](x)
