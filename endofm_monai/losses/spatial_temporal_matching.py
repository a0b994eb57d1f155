# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Literal

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from monai.utils import evenly_divisible_all_gather
from torch import nn


class SpatialTemporalMatchingLoss(nn.Module):
    r"""Self-supervised loss of Endo-FM: the student's views predict the teacher's global views.

    With teacher targets :math:`q_i = \mathrm{softmax}((t_i - c)/\tau_t)` and student predictions
    :math:`p_v = \mathrm{softmax}(s_v/\tau_s)` it is the mean of ``-sum(q[i] * log(p[v]))`` over all clips and pairs of
    a global view i and another view v (18 for 2 global and 8 local views, as in the published code). Pairs of two
    global views are the dynamic motion matching L_dm, all others the cross-view matching L_cv (paper, section 2.2). A
    running centre c of the teacher's logits prevents collapse. With few clips it cannot; there the targets of
    :func:`sinkhorn` use all prototypes alike, and :func:`koleo` drives the clips apart, as in DINOv2 (Oquab et al.,
    TMLR 2024).

    A call leaves, without gradient and averaged over all ranks, ``total``, the matching loss, ``dynamic_motion`` and
    ``cross_view``, the shares of L_dm and L_cv in it; ``koleo``, before its weight; ``pairs`` ``(G, V)``, the
    cross-entropy of each pair, NaN where a view would match itself; and ``teacher_entropy``, the mean of the targets in
    nats (uniform: ``ln K``, one-hot: 0).

    When ranks hold different numbers of clips, perhaps none, the loss is scaled so that the mean of all ranks'
    gradients, as ``DistributedDataParallel`` takes it, is the gradient of the mean over all clips; if no rank holds a
    clip, the loss is 0 and the centre stays.

    Args:
        num_prototypes: number K of logits.
        num_global_views: number G of views that the teacher sees; the first ones of the student's.
        student_temperature: temperature of the predictions.
        teacher_temperature: temperature of the targets; an attribute that a schedule may set.
        center_momentum: share of the old centre that an update keeps.
        targets: how the teacher's logits become targets: less the running ``"center"``, or by ``"sinkhorn"``.
        queue_length: number of earlier teacher logits that Sinkhorn's targets are balanced with, for small batches.
        koleo_weight: weight of :func:`koleo` of the student's class tokens of the global views.
    """

    center: torch.Tensor
    queue: torch.Tensor | None
    queue_rows: torch.Tensor | None

    def __init__(
        self,
        num_prototypes: int = 65536,
        num_global_views: int = 2,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
        targets: Literal["center", "sinkhorn"] = "center",
        queue_length: int = 0,
        koleo_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if targets not in ("center", "sinkhorn"):
            raise ValueError(f"`targets` must be 'center' or 'sinkhorn', but got {targets!r}.")
        if queue_length and targets == "center":
            raise ValueError("`queue_length` belongs to the targets of 'sinkhorn', but `targets` is 'center'.")
        self.num_global_views = num_global_views
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_momentum = center_momentum
        self.targets = targets
        self.koleo_weight = koleo_weight
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self.register_buffer("queue", torch.zeros(queue_length, num_prototypes) if queue_length else None)
        self.register_buffer("queue_rows", torch.tensor(0) if queue_length else None)
        self._pending: list[torch.Tensor] = []  # sum of teacher logits and their number, a call each

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        class_tokens: torch.Tensor | None = None,
        update_center: bool = True,
    ) -> torch.Tensor:
        """Float32 loss of the student's logits ``(V, B, K)`` and the teacher's ``(G, B, K)``, in any float type.

        ``class_tokens`` ``(G, B, D)`` are the student's, for KoLeo. In training mode the centre moves; with gradient
        accumulation once, by the mean over all calls, if all but the last of a step have ``update_center=False``.
        """
        wanted = (self.num_global_views, student.shape[1], self.center.shape[1])
        if teacher.shape != wanted or student.shape[2:] != wanted[2:] or len(student) < len(teacher):
            raise ValueError(
                f"Expected student logits (V, B, {wanted[2]}) and teacher logits ({wanted[0]}, B, {wanted[2]}) with "
                f"V >= {wanted[0]}, but got {tuple(student.shape)} and {tuple(teacher.shape)}."
            )
        with torch.autocast(student.device.type, enabled=False):
            loss = self._match(student.float(), teacher.detach().float(), update_center)
            if self.koleo_weight and class_tokens is not None:
                spreading = torch.stack([koleo(tokens.float()) for tokens in class_tokens]).mean()
                self.koleo = spreading.detach()
                loss = loss + self.koleo_weight * spreading * idist.get_world_size()
        return loss

    def _soft_targets(self, logits: torch.Tensor) -> torch.Tensor:
        """Targets ``(G, B, K)`` of the teacher's logits."""
        if self.targets == "center":
            return ((logits - self.center) / self.teacher_temperature).softmax(dim=-1)
        rows = logits.flatten(0, 1)
        targets = sinkhorn(rows, self.teacher_temperature, self.queue, self.queue_rows).view_as(logits)
        if self.training and self.queue is not None and self.queue_rows is not None:
            enqueue(self.queue, self.queue_rows, rows)
        return targets

    def _match(self, student: torch.Tensor, teacher: torch.Tensor, update_center: bool) -> torch.Tensor:
        batch = torch.tensor(teacher.shape[1], dtype=torch.float32, device=teacher.device)
        clips = sum_over_ranks(batch).clamp(min=1)
        q = self._soft_targets(teacher)  # (G, B, K)
        log_p = F.log_softmax(student / self.student_temperature, dim=-1)  # (V, B, K)
        matching = -torch.einsum("gbk,vbk->gv", q, log_p)  # cross-entropies, summed over this rank's clips
        same_view = torch.eye(*matching.shape, dtype=torch.bool, device=matching.device)
        num_pairs = matching.numel() - self.num_global_views
        loss = matching.masked_fill(same_view, 0).sum() / (num_pairs * clips)

        with torch.no_grad():
            entropy = torch.special.entr(q).sum() / self.num_global_views
            pairs, self.teacher_entropy = (sum_over_ranks(value) / clips for value in (matching.detach(), entropy))
            self.pairs = pairs.masked_fill(same_view, torch.nan)
            self.dynamic_motion = self.pairs[:, : self.num_global_views].nansum() / num_pairs
            self.cross_view = self.pairs[:, self.num_global_views :].sum() / num_pairs
            self.total = self.dynamic_motion + self.cross_view
            if self.training:
                self._pending.append(torch.cat([teacher.sum(dim=(0, 1)), batch.reshape(1) * self.num_global_views]))
            if self.training and update_center:
                total = sum_over_ranks(torch.stack(self._pending).sum(dim=0))
                self._pending.clear()
                share = (1 - self.center_momentum) * (total[-1] > 0)  # a branch would wait for the device
                self.center.lerp_(total[:-1] / total[-1].clamp(min=1), share)
        return loss * idist.get_world_size()


def koleo(features: torch.Tensor) -> torch.Tensor:
    """Minus the mean logarithm of the distance of normalized features ``(N, D)`` to their nearest neighbour.

    (Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019.) Neighbours and value are those of all
    ranks, so that the sum of their gradients is its gradient. It is 0 with fewer than two rows.
    """
    rows = F.normalize(features, dim=1)
    everyones, own = gather_rows(rows)
    rows = everyones.index_copy(0, own, rows)
    if len(rows) < 2:
        return 0 * rows.sum()
    with torch.no_grad():
        nearest = (rows @ rows.T).fill_diagonal_(-2).argmax(dim=1)
    return -F.pairwise_distance(rows, rows[nearest], eps=1e-8).add(1e-8).log().mean()


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum over processes, without gradient between them."""
    return idist.all_reduce(value.clone())


def gather_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of all ranks, without gradient, and the numbers of this rank's own among them."""
    before = sum(idist.all_gather(len(rows))[: idist.get_rank()])
    own = torch.arange(before, before + len(rows), device=rows.device)
    return evenly_divisible_all_gather(rows.detach()), own


@torch.no_grad()
def sinkhorn(
    logits: torch.Tensor,
    temperature: float,
    earlier: torch.Tensor | None = None,
    held: torch.Tensor | None = None,
    iterations: int = 3,
) -> torch.Tensor:
    """Targets that use all prototypes alike: Sinkhorn-Knopp's balancing of ``softmax(logits / temperature)``.

    In turn each prototype's sum over the rows ``(N, K)`` of all ranks and each row's sum become 1 (up to a factor), the
    rows' last (Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS
    2020). Logarithms carry it, so that logits may be of any finite size. The result is float32.

    Args:
        logits: ``(N, K)``; each rank has its own rows, perhaps none.
        temperature: the lower, the nearer to one-hot.
        earlier: rows ``(M, K)``, the same on all ranks, that the targets are balanced with.
        held: how many of these count, the first ones, as of a queue that fills up; by default all.
        iterations: number of turns; few leave the prototypes' use uneven where the logits are.
    """
    log_q = logits.float()
    if earlier is not None and idist.get_rank() == 0:
        log_q = torch.cat([log_q, earlier])
    log_q = log_q / temperature
    row, lowest = torch.arange(len(log_q), device=log_q.device).unsqueeze(1), torch.finfo(torch.float32).min
    left_out = row >= len(logits) + (len(log_q) if held is None else held)  # reading `held` would wait for the device
    for _ in range(iterations):
        largest = F.pad(log_q.masked_fill(left_out, lowest), (0, 0, 0, 1), value=lowest).amax(dim=0)
        log_q = log_q - idist.all_reduce(largest, op="MAX")
        uses = sum_over_ranks(log_q.exp().masked_fill(left_out, 0).sum(dim=0))
        log_q = (log_q - uses.log()).log_softmax(dim=1)
    return log_q[: len(logits)].exp()


@torch.no_grad()
def enqueue(queue: torch.Tensor, count: torch.Tensor, rows: torch.Tensor) -> None:
    """Put the ``rows`` ``(N, ...)`` of all ranks first in a ``queue`` ``(L, ...)``, in place; the oldest fall out.

    ``count`` is the number of rows that the queue holds.
    """
    rows = evenly_divisible_all_gather(rows)
    queue.copy_(torch.cat([rows, queue])[: len(queue)])
    count.add_(len(rows)).clamp_(max=len(queue))
