# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, EventEnum, Events
from monai.data import decollate_batch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn

from endofm_monai.data import ClipReadError, open_clip, split_clips
from endofm_monai.networks import unwrap
from endofm_monai.utils import name_memory_errors

__all__ = ["ClipEvaluator", "VideoEvaluator", "VideoEvents"]


class ClipEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for batches of :func:`endofm_monai.data.collate_clips`.

    A batch without a readable clip has no output and is gone on from; what broken clips mean is up to a
    :class:`endofm_monai.handlers.BrokenClipsHandler`. ``amp`` works on every device, with the ``dtype`` of
    ``amp_kwargs``, bfloat16 by default. Each process evaluates its own clips by the bare network, since the forward of
    ``DistributedDataParallel`` would wait for processes that have fewer. Arguments are MONAI's.
    """

    def __init__(
        self, device: str | torch.device, val_data_loader: Iterable[Any], network: nn.Module, **kwargs: Any
    ) -> None:
        amp = kwargs.pop("amp", False)  # MONAI's own is for CUDA only
        super().__init__(torch.device(device), val_data_loader, unwrap(network), **kwargs)
        options = {"dtype": torch.bfloat16, **self.amp_kwargs}
        self._autocast = torch.autocast(self.state.device.type, enabled=amp, **options)

    def _register_decollate(self) -> None:
        @self.on(IterationEvents.MODEL_COMPLETED)
        def decollate(engine: Engine) -> None:
            engine.state.batch = split_clips(engine.state.batch)
            engine.state.output = decollate_batch(engine.state.output)

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> Any:
        engine.state.batch = batchdata = {key: value for key, value in batchdata.items() if key != "broken"}
        if len(batchdata[CommonKeys.IMAGE]) == 0:
            engine.state.batch = []
            return []
        with self._autocast:
            return super()._iteration(engine, batchdata)


class VideoEvents(EventEnum):
    """What happens on the way through a video, between ``Events.ITERATION_STARTED`` and ``ITERATION_COMPLETED``."""

    VIDEO_STARTED = "video_started"  # `state.item`, `state.info` and the frames' `state.shown_at`, in s, are known
    PIECE_COMPLETED = "piece_completed"  # `state.frame` and `state.answer` are those of piece number `state.piece`
    VIDEO_COMPLETED = "video_completed"  # all pieces were answered
    VIDEO_BROKEN = "video_broken"  # `state.problem` says why no further piece comes


class VideoEvaluator(SupervisedEvaluator):
    """MONAI's evaluator for whole videos, which a predictor goes through piece by piece in bounded memory.

    An iteration is a video: its file is opened once, and handlers of :class:`VideoEvents` see each piece (a frame, or
    a window of a classifier) as it comes. A video that breaks off is reported as ``broken`` to a
    :class:`endofm_monai.handlers.BrokenClipsHandler`, and the run goes on with the next one. A run without a video,
    where all are done, starts and ends as any other: handlers load the weights and check what they would write to.

    Args:
        val_data_loader: loader of one item a batch, see :class:`endofm_monai.data.ClipLoader`, with ``image``: what
            :func:`endofm_monai.data.open_clip` opens.
        network: the network, perhaps in ``DistributedDataParallel``.
        predictor: an :class:`endofm_monai.inferers.Predictor` of the network.
        threads: decoding threads; see :class:`endofm_monai.data.VideoReader`.
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
        if len(val_data_loader):  # type: ignore[arg-type]
            predictor.try_out()  # before a handler counts the time, or writes
        self.predictor, self.threads = predictor, threads
        events = {"event_names": [*VideoEvents], "decollate": False}
        super().__init__(torch.device(device), val_data_loader, unwrap(network), **events, **kwargs)

    def run(self, global_epoch: int = 1) -> None:
        if self.state.epoch_length:
            super().run(global_epoch)
        else:
            self.fire_event(Events.STARTED)
            self.fire_event(Events.COMPLETED)

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Go through one video; the output is empty, since handlers have seen all of it."""
        if batchdata.get("broken"):
            return {}
        state = engine.state
        state.item = {key: values[0] for key, values in batchdata.items() if key != "broken"}
        state.info, state.piece, state.problem = None, 0, None
        where = f"{state.item.get('name', state.item['image'])}, frame or window"
        try:
            with (
                name_memory_errors(lambda: f"{where} {state.piece}", "lower the size or number of frames seen at once"),
                open_clip(state.item["image"], threads=self.threads) as reader,
            ):
                state.info, state.shown_at = reader.probe(), reader.times()
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
