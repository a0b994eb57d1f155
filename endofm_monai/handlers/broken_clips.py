# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

from endofm_monai.data import ClipReadError

__all__ = ["BrokenClipsHandler"]

logger = logging.getLogger(__name__)


class BrokenClipsHandler:
    """Decides what happens when clips of a :class:`endofm_monai.data.ClipDataset` cannot be read.

    Works with every trainer and evaluator whose batches list the messages of broken clips under ``broken``. Each
    broken clip is reported once, left out of its batch, and counted; another clip never takes its place.

    Args:
        on_error: ``"raise"`` stops at the first broken clip, ``"skip"`` goes on without it.
        max_share: with ``"skip"``, the run stops when more than this share of the clips is broken.

    Raises:
        ValueError: when ``on_error`` is neither.
    """

    def __init__(self, on_error: str = "raise", max_share: float = 0.05) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip", but got {on_error!r}.')
        self.on_error = on_error
        self.max_share = max_share
        self.broken: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register the handler with a MONAI trainer or evaluator."""
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.inspect)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self.summarize)

    def inspect(self, engine: Engine) -> None:
        """Report the broken clips of the present batch.

        Raises:
            ClipReadError: by the policy; the message names the file, or counts them.
        """
        for message in engine.state.batch.get("broken", []):
            if self.on_error == "raise":
                raise ClipReadError(f'{message} (use `on_error="skip"` to leave broken clips out)')
            if message not in self.broken:
                self.broken.add(message)
                logger.warning(f"Skipping a broken clip: {message}")
        clips = len(engine.data_loader.dataset)
        if len(self.broken) > self.max_share * clips:
            raise ClipReadError(
                f"{len(self.broken)} of {clips} clips are broken, more than `max_share`={self.max_share:.0%}: "
                + "; ".join(sorted(self.broken)[:3])
                + ("; ..." if len(self.broken) > 3 else "")
            )

    def summarize(self, engine: Engine) -> None:
        """Log how many clips were left out."""
        if self.broken:
            logger.warning(f"{len(self.broken)} of {len(engine.data_loader.dataset)} clips were broken and skipped.")
