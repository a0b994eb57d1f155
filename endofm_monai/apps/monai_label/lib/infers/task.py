# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from typing import Any

from fastapi import HTTPException
from monai.inferers import Inferer
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.utils.others.generic import strtobool
from torch import nn

from endofm_monai.apps.monai_label.lib.bundle import Bundle
from endofm_monai.apps.monai_label.lib.clip_context import Clip, find_clip
from endofm_monai.apps.monai_label.lib.device import requested_device
from endofm_monai.data import ClipReadError
from endofm_monai.weights import WeightsError

__all__ = ["EndoInferTask", "wanted_frame"]


class EndoInferTask(BasicInferTask):
    """Asks a bundle's network about one frame, which it sees among its neighbors.

    A request has ``image``, a path; for a video ``frame``, the number of the frame, counted from 0; and ``context``:
    False shows the network nothing but the frame itself.

    One task answers one request at a time, whatever the number of threads. When there are new weights, the next
    request uses them.

    Args:
        bundle: the bundle.
    """

    infer_type: InferType

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        super().__init__(
            path=[str(file) for file in (*reversed(bundle.shared_weights), bundle.trained_weights)],
            network=bundle.get("network_def"),
            type=self.infer_type,
            labels=bundle.labels,
            dimension=2,
            description=bundle.description,
            config={"context": True},
        )
        self._lock = threading.Lock()
        self._loaded: tuple[Any, ...] = ()

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Answer a request; the result is that of the writers of MONAI Label: a file or None, and JSON.

        Raises:
            HTTPException: when the image or video cannot be read, has no such frame, or the weights do not fit.
        """
        try:
            frame = None if request.get("frame") is None else int(request["frame"])
            device = str(requested_device(request))
        except (TypeError, ValueError) as error:
            raise HTTPException(400, f"`frame` must be a number and `device` a device: {error}") from error
        with self._lock:
            try:
                clip = find_clip(request["image"], frame, strtobool(request.get("context", True)))
                return self._answer(clip, {**request, "device": device})
            except (ClipReadError, WeightsError) as error:
                raise HTTPException(400, str(error)) from error

    def info(self) -> dict[str, Any]:
        """Describe the task to clients."""
        return {**super().info(), "version": self.bundle.version, "endoscopy": True}

    def score(self, image: str) -> float:
        """Uncertainty about a frame, or about a video as a whole, from 0 to 1; errors are those of a request."""
        return self._uncertainty(self({"image": image, "skip_writer": True})[1])

    def inferer(self, data: Any = None) -> Inferer:
        """The bundle's inferer."""
        return self.bundle.get("inferer")

    @abstractmethod
    def _uncertainty(self, data: dict[str, Any]) -> float: ...

    def _answer(self, clip: Clip, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        (item,) = self._inputs(clip)
        return super().__call__({**request, **item})

    @abstractmethod
    def _inputs(self, clip: Clip) -> list[dict[str, Any]]: ...

    def _get_network(self, device: str, data: Any) -> nn.Module:
        weights = self.bundle.weights
        current = (device, weights, weights and os.stat(weights).st_mtime_ns)
        if current != self._loaded:
            self.bundle.load_weights(self.network)
            self.network.to(device).eval()
            self._loaded = current
        return self.network


def wanted_frame(clip: Clip) -> int:
    """The number of the frame that a request must name.

    Raises:
        ClipReadError: when it names none.
    """
    if clip.frame is None:
        raise ClipReadError(
            f"{os.path.basename(str(clip.source))}: is a video; say which `frame`, from 0 to {clip.length - 1}"
        )
    return clip.frame
