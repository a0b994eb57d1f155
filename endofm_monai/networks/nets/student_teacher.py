# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from endofm_monai.networks.nets.endofm import EndoFM


class _SumOverRanks(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return idist.all_reduce(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return idist.all_reduce(gradient.clone())


def _sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    return _SumOverRanks.apply(x) if idist.get_world_size() > 1 else x


class SyncedBatchNorm(nn.Module):
    """Batch normalization by the rows of all processes, on any device; some may have none.

    It always takes the statistics of the batch. (``torch.nn.SyncBatchNorm`` runs on GPUs only.)
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize ``(N, D)``."""
        rows = x.float()
        count = idist.all_reduce(len(rows)) or 1
        centered = rows - _sum_over_ranks(rows.sum(dim=0)) / count
        variance = _sum_over_ranks(centered.square().sum(dim=0)) / count
        return (centered * (variance + self.eps).rsqrt() * self.weight + self.bias).to(x.dtype)


class ProjectionHead(nn.Module):
    """Projection head of the pre-training: an MLP, then cosines to ``num_prototypes`` learned directions.

    Features go through a 3-layer GELU MLP, ``hidden_dim`` wide, to a bottleneck of ``bottleneck_dim``, are
    L2-normalized, and meet a weight-normalized linear layer whose norms are fixed at 1. Its cosines are always computed
    in float32: a temperature of 0.04 multiplies their rounding error by 25. With ``batch_norm`` the hidden layers are
    normalized over the views of the batch, which keeps few clips apart.
    """

    def __init__(
        self,
        embed_dim: int,
        num_prototypes: int,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (embed_dim, hidden_dim):
            norm = [SyncedBatchNorm(hidden_dim)] if batch_norm else []
            layers += [nn.Linear(width, hidden_dim), *norm, nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden_dim, bottleneck_dim))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, num_prototypes, bias=False))
        lengths = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(lengths)
        lengths.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cosines ``(..., K)`` in float32 of class tokens ``(..., D)``."""
        bottleneck = self.mlp(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        with torch.autocast(x.device.type, enabled=False):
            return self.last_layer(F.normalize(bottleneck.float(), dim=-1))


class ProjectionNetwork(nn.Module):
    """A backbone from clips ``(B, C, T, H, W)`` to class tokens, and its projection head, for views of any shapes."""

    backbone: EndoFM

    def __init__(self, backbone: EndoFM, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def class_tokens(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Class tokens ``(V, B, D)`` of V views, each ``(B, C, T, H, W)``; all run as one."""
        groups: dict[torch.Size, list[torch.Tensor]] = {}
        for view in views:
            groups.setdefault(view.shape, []).append(view)
        batches = self.backbone.forward_packed([torch.cat(group) for group in groups.values()])
        parts = [iter(tokens.chunk(len(group))) for group, tokens in zip(groups.values(), batches, strict=True)]
        by_shape = dict(zip(groups, parts, strict=True))
        return torch.stack([next(by_shape[view.shape]) for view in views])

    def forward(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits ``(V, B, K)`` of V views, each ``(B, C, T, H, W)``."""
        return self.head(self.class_tokens(views))


class StudentTeacher(nn.Module):
    """Student and teacher of the self-supervised pre-training, as one network (paper, section 2.2).

    The teacher starts as a copy of the student, takes no gradient, is always in evaluation mode, and follows the
    student by :meth:`update_teacher`. Being one module, both are wrapped, aggregated and saved together.

    Args:
        backbone: the backbone to pre-train; becomes the student's.
        num_prototypes: see :class:`ProjectionHead`; ``hidden_dim``, ``bottleneck_dim`` and ``batch_norm`` likewise.
        num_global_views: the first views, which the teacher sees too.
        teacher_momentum: share of itself that the teacher keeps at an update; an attribute that a schedule may set.
    """

    teacher_tokens: torch.Tensor

    def __init__(
        self,
        backbone: EndoFM,
        num_prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_global_views: int = 2,
        teacher_momentum: float = 0.996,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        head = ProjectionHead(backbone.embed_dim, num_prototypes, hidden_dim, bottleneck_dim, batch_norm)
        self.num_global_views = num_global_views
        self.teacher_momentum = teacher_momentum
        self.student = ProjectionNetwork(backbone, head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher.backbone.token_drop = 0.0
        self.train()

    @property
    def backbone(self) -> EndoFM:
        """The backbone that others start from, the teacher's."""
        return self.teacher.backbone

    @property
    def last_layer(self) -> nn.Module:
        """What gets no gradient in the first epochs."""
        return self.student.head.last_layer  # type: ignore[return-value]

    def train(self, mode: bool = True) -> StudentTeacher:
        """Set the student's mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self, views: Sequence[torch.Tensor], clips: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the student on all V normalized views ``(B, C, T, H, W)`` and the teacher on the G global ones.

        It gives the student's logits ``(V, B, K)``, the teacher's ``(G, B, K)`` without gradient and the student's
        class tokens ``(G, B, D)`` of the global views, the first; ``teacher_tokens`` are the teacher's. Of the B clips
        only the first ``clips`` reach the heads, if that is given: a process without a clip runs the backbone on a
        dummy, to take part in the collective calls.
        """
        with torch.no_grad():
            self.teacher_tokens = self.teacher.class_tokens(views[: self.num_global_views])[:, :clips]
            teacher_logits = self.teacher.head(self.teacher_tokens)
        class_tokens = self.student.class_tokens(views)[:, :clips]
        return self.student.head(class_tokens), teacher_logits, class_tokens[: self.num_global_views]

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move every teacher parameter to ``m * teacher + (1 - m) * student``, m being the ``teacher_momentum``."""
        teacher = [parameter.data for parameter in self.teacher.parameters()]
        student = [parameter.data for parameter in self.student.parameters()]
        torch._foreach_lerp_(teacher, student, 1 - self.teacher_momentum)


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
