# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Targets that use all prototypes alike, of small batches with the help of a queue of earlier ones."""

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from monai.utils import evenly_divisible_all_gather


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum over processes, without gradient between them."""
    return idist.all_reduce(value.clone()) if idist.get_world_size() > 1 else value


@torch.no_grad()
def sinkhorn(
    logits: torch.Tensor, temperature: float, earlier: torch.Tensor | None = None, iterations: int = 3
) -> torch.Tensor:
    """Targets that use all prototypes alike: Sinkhorn-Knopp's balancing of ``softmax(logits / temperature)``.

    In turn each prototype's sum over the rows of all ranks and each row's sum become 1 (up to a factor), the rows' last
    (Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020).

    Args:
        logits: ``(N, K)``; each rank has its own rows, perhaps none.
        temperature: the lower, the nearer to one-hot.
        earlier: rows ``(M, K)``, the same on all ranks, that the targets are balanced with.
        iterations: number of turns; few leave the prototypes' use uneven where the logits are.

    Returns:
        float32 ``(N, K)``, rows summing to 1. Logarithms carry it, so that logits may be of any finite size.
    """
    log_q = logits.float()
    if earlier is not None and idist.get_rank() == 0:
        log_q = torch.cat([log_q, earlier])
    log_q = log_q / temperature
    for _ in range(iterations):
        largest = F.pad(log_q, (0, 0, 0, 1), value=torch.finfo(torch.float32).min).amax(dim=0)
        if idist.get_world_size() > 1:
            largest = idist.all_reduce(largest, op="MAX")
        log_q = log_q - largest
        log_q = (log_q - sum_over_ranks(log_q.exp().sum(dim=0)).log()).log_softmax(dim=1)
    return log_q[: len(logits)].exp()


@torch.no_grad()
def enqueue(queue: torch.Tensor, count: torch.Tensor, rows: torch.Tensor) -> None:
    """Put the ``rows`` ``(N, ...)`` of all ranks first in a ``queue`` ``(L, ...)``, in place; the oldest fall out.

    ``count`` is the number of rows that the queue holds.
    """
    remembered = torch.cat([evenly_divisible_all_gather(rows), queue[: int(count)]])[: len(queue)]
    queue[: len(remembered)] = remembered
    count.fill_(len(remembered))
