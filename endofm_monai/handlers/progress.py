# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ignite.distributed as idist
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.utils import CommonKeys

__all__ = ["ProgressHandler"]


class ProgressHandler:
    """A progress bar with the time left and, while training, the loss; on the first process only.

    Args:
        description: what is under way.
    """

    def __init__(self, description: str = "Epoch") -> None:
        self.description = description

    def attach(self, engine: Engine) -> None:
        """Register the handler with a trainer or evaluator."""
        if idist.get_rank() == 0:
            bar = ProgressBar(persist=True, desc=self.description)
            bar.attach(engine, output_transform=_loss_of)


def _loss_of(output: object) -> dict[str, float]:
    has_loss = isinstance(output, dict) and CommonKeys.LOSS in output
    return {"loss": float(output[CommonKeys.LOSS])} if has_loss else {}  # type: ignore[index]
