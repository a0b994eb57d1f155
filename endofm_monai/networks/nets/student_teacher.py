# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from endofm_monai.networks.blocks import ProjectionHead
from endofm_monai.networks.nets.endofm import EndoFM

__all__ = ["ProjectionNetwork", "StudentTeacher", "TeacherBackbone"]


class ProjectionNetwork(nn.Module):
    """A backbone with its projection head, applied to views of several shapes.

    Args:
        backbone: network from clips ``(B, C, T, H, W)`` to class tokens ``(B, D)``.
        head: network from class tokens ``(..., D)`` to logits ``(..., K)``.
    """

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

    The teacher starts as a copy of the student, takes no gradient, and follows the student by
    :meth:`update_teacher`. Being one module, both are wrapped, aggregated and saved together.

    Args:
        backbone: the backbone to pre-train; becomes the student's.
        num_prototypes: number K of logits of the projection head.
        hidden_dim: width of the head's hidden layers.
        bottleneck_dim: width of the head's normalized features.
        num_global_views: the first views, which the teacher sees too.
        teacher_momentum: share of itself that the teacher keeps at an update; an attribute that a schedule may set.
        reference_teacher_drop_path: keep drop path active in the teacher, as the published code does; the targets
            are then noisy.
    """

    def __init__(
        self,
        backbone: EndoFM,
        num_prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_global_views: int = 2,
        teacher_momentum: float = 0.996,
        reference_teacher_drop_path: bool = False,
    ) -> None:
        super().__init__()
        head = ProjectionHead(backbone.embed_dim, num_prototypes, hidden_dim, bottleneck_dim)
        self.num_global_views = num_global_views
        self.teacher_momentum = teacher_momentum
        self.reference_teacher_drop_path = reference_teacher_drop_path
        self.student = ProjectionNetwork(backbone, head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> StudentTeacher:
        """Set the student's mode; the teacher stays in evaluation mode (see ``reference_teacher_drop_path``)."""
        super().train(mode)
        self.teacher.train(mode and self.reference_teacher_drop_path)
        return self

    def forward(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the student on all views and the teacher on the global ones.

        Args:
            views: V normalized views ``(B, C, T, H, W)``, global ones first.

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

    So an evaluation of the backbone takes its part of the weights of a whole pre-training, as federated learning
    hands them out, without the memory for student and heads.

    Args:
        backbone: network from clips ``(B, C, T, H, W)`` to class tokens ``(B, D)``.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.teacher = nn.ModuleDict({"backbone": backbone})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class tokens ``(B, D)`` of normalized clips ``(B, C, T, H, W)``."""
        return self.teacher["backbone"](x)
