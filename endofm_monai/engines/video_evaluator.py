# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import EventEnum, Events
from monai.engines import SupervisedEvaluator
from torch import nn

from endofm_monai.data import ClipReadError, open_clip
from endofm_monai.networks import unwrap

__all__ = ["VideoEvaluator", "VideoEvents"]


class VideoEvents(EventEnum):
    """What happens on the way through a video, between ``Events.ITERATION_STARTED`` and ``ITERATION_COMPLETED``."""

    VIDEO_STARTED = "video_started"  # `state.item` and `state.info` are known
    PIECE_COMPLETED = "piece_completed"  # `state.frame` and `state.answer` are those of piece number `state.piece`
    VIDEO_COMPLETED = "video_completed"  # all pieces were answered
    VIDEO_BROKEN = "video_broken"  # `state.problem` says why no further piece comes


class VideoEvaluator(SupervisedEvaluator):
    """MONAI's evaluator for whole videos, which a predictor goes through piece by piece in bounded memory.

    An iteration is a video: its file is opened once, and handlers of :class:`VideoEvents` see each piece (a frame, or
    a window of a classifier) as it comes. A video that breaks off is reported as ``broken`` to a
    :class:`endofm_monai.handlers.BrokenClipsHandler`, and the run goes on with the next one.

    Args:
        device: where the network is.
        val_data_loader: loader of one item a batch, see :class:`endofm_monai.data.ClipLoader`, with ``image``: what
            :func:`endofm_monai.data.open_clip` opens.
        network: the network, perhaps in ``DistributedDataParallel``.
        predictor: an :class:`endofm_monai.inferers.Predictor` of the network.
        threads: decoding threads; see :class:`endofm_monai.data.VideoReader`.
        kwargs: further arguments of ``monai.engines.SupervisedEvaluator``: ``key_val_metric``, ``val_handlers``, ...
    """

    def __init__(
        self,
        device: str | torch.device,
        val_data_loader: Iterable[Any],
        network: nn.Module,
        predictor: Any,
        threads: int = 1,
        **kwargs: Any,
    ) -> None:
        self.predictor = predictor
        self.threads = threads
        events = {"event_names": [*VideoEvents], "decollate": False}
        super().__init__(torch.device(device), val_data_loader, unwrap(network), **events, **kwargs)

    def _iteration(self, engine: VideoEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Go through one video; the output is empty, since handlers have seen all of it."""
        if batchdata.get("broken"):
            return {}
        state = engine.state
        state.item = {key: values[0] for key, values in batchdata.items() if key != "broken"}
        state.info, state.piece, state.problem = None, 0, None
        try:
            with open_clip(state.item["image"], threads=self.threads) as reader:
                state.info = reader.probe()
                engine.fire_event(VideoEvents.VIDEO_STARTED)
                for state.frame, state.answer in engine.predictor.pieces(reader):
                    engine.fire_event(VideoEvents.PIECE_COMPLETED)
                    state.piece += 1
        except ClipReadError as error:
            state.problem = str(error)
            engine.fire_event(VideoEvents.VIDEO_BROKEN)
            state.batch = {"broken": [state.problem]}
            engine.fire_event(Events.GET_BATCH_COMPLETED)  # those who ask what was read hear of it now
        else:
            engine.fire_event(VideoEvents.VIDEO_COMPLETED)
        return {}
