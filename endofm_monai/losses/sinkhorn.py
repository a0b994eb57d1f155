# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What losses over the clips of all ranks share: sums and rows of these, balanced targets, a queue of earlier rows."""

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from monai.utils import evenly_divisible_all_gather


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

    In turn each prototype's sum over the rows of all ranks and each row's sum become 1 (up to a factor), the rows' last
    (Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020).

    Logarithms carry it, so that logits may be of any finite size. The result is float32.

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
