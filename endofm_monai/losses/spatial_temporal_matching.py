# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from torch import nn


class SpatialTemporalMatchingLoss(nn.Module):
    r"""Self-supervised loss of Endo-FM: the student's views predict the teacher's global views.

    With teacher targets :math:`q_i = \mathrm{softmax}((t_i - c)/\tau_t)` and student predictions
    :math:`p_v = \mathrm{softmax}(s_v/\tau_s)`::

        loss = 0
        for i in global views:                    # teacher
            for v in all views except i:          # student
                loss += mean over clips of -sum(q[i] * log(p[v]))
        loss = loss / number of pairs

    Pairs of two global views (other frame rate) are the dynamic motion matching L_dm, pairs of a local with a global
    view are the cross-view matching L_cv (paper, section 2.2). As in the published code the loss is the mean over
    all pairs (18 for 2 global and 8 local views), and a running centre c of the teacher's logits prevents collapse.

    A call leaves, without gradient and averaged over all ranks, ``total``, the loss, ``dynamic_motion`` and
    ``cross_view``, the shares of L_dm and L_cv in it; ``pairs`` ``(G, V)``, the cross-entropy of each pair, NaN where a
    view would match itself; and ``teacher_entropy``, the mean of the targets in nats (uniform: ``ln K``, one-hot: 0).

    When ranks hold different numbers of clips, the returned loss is scaled so that the mean of all ranks' gradients,
    as ``DistributedDataParallel`` takes it, is the gradient of the mean over all clips. A rank may hold none;
    if no rank holds a clip, the loss is 0 and the centre stays.

    Args:
        num_prototypes: number K of logits.
        num_global_views: number G of views that the teacher sees; the first ones of the student's.
        student_temperature: temperature of the predictions.
        teacher_temperature: temperature of the targets; an attribute that a schedule may set.
        center_momentum: share of the old centre that an update keeps.
    """

    center: torch.Tensor

    def __init__(
        self,
        num_prototypes: int = 65536,
        num_global_views: int = 2,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.num_global_views = num_global_views
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self._pending: list[torch.Tensor] = []  # sum of teacher logits and their number, a call each

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, update_center: bool = True) -> torch.Tensor:
        """Float32 loss of the student's logits ``(V, B, K)`` and the teacher's ``(G, B, K)``, in any float type.

        In training mode the centre moves. With gradient accumulation pass ``update_center=False`` except at the last
        call of a step: it then moves once, by the mean over all calls.
        """
        wanted = (self.num_global_views, student.shape[1], self.center.shape[1])
        if teacher.shape != wanted or student.shape[2:] != wanted[2:] or len(student) < len(teacher):
            raise ValueError(
                f"Expected student logits (V, B, {wanted[2]}) and teacher logits ({wanted[0]}, B, {wanted[2]}) with "
                f"V >= {wanted[0]}, but got {tuple(student.shape)} and {tuple(teacher.shape)}."
            )
        with torch.autocast(student.device.type, enabled=False):
            return self._match(teacher.detach().float(), student.float(), update_center)

    def _match(self, targets: torch.Tensor, predictions: torch.Tensor, update_center: bool) -> torch.Tensor:
        batch = torch.tensor(targets.shape[1], dtype=torch.float32, device=targets.device)
        clips = _sum_over_ranks(batch).clamp(min=1)
        q = ((targets - self.center) / self.teacher_temperature).softmax(dim=-1)  # (G, B, K)
        log_p = F.log_softmax(predictions / self.student_temperature, dim=-1)  # (V, B, K)
        matching = -torch.einsum("gbk,vbk->gv", q, log_p)  # cross-entropies, summed over this rank's clips
        same_view = torch.eye(*matching.shape, dtype=torch.bool, device=matching.device)
        num_pairs = matching.numel() - self.num_global_views
        loss = matching.masked_fill(same_view, 0).sum() / (num_pairs * clips)

        with torch.no_grad():
            entropy = torch.special.entr(q).sum() / self.num_global_views
            pairs, self.teacher_entropy = (_sum_over_ranks(value) / clips for value in (matching.detach(), entropy))
            self.pairs = pairs.masked_fill(same_view, torch.nan)
            self.dynamic_motion = self.pairs[:, : self.num_global_views].nansum() / num_pairs
            self.cross_view = self.pairs[:, self.num_global_views :].sum() / num_pairs
            self.total = self.dynamic_motion + self.cross_view
            if self.training:
                self._pending.append(torch.cat([targets.sum(dim=(0, 1)), batch.reshape(1) * self.num_global_views]))
            if self.training and update_center:
                total = _sum_over_ranks(torch.stack(self._pending).sum(dim=0))
                self._pending.clear()
                if total[-1] > 0:
                    self.center.lerp_(total[:-1] / total[-1], 1 - self.center_momentum)
        return loss * idist.get_world_size()


def _sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    return idist.all_reduce(value.clone()) if idist.get_world_size() > 1 else value
