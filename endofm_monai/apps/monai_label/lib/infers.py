# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException
from monai.inferers import Inferer
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.transform.post import FindContoursd
from monailabel.transform.writer import PolygonWriter
from monailabel.utils.others.generic import name_to_device, strtobool
from PIL import Image
from torch import nn

from endofm_monai.apps.monai_label.lib.clip_context import Clip, find_clip
from endofm_monai.data import ClipReadError, WindowPlan, chunk_frames, cover_videos, open_clip, sample_videos
from endofm_monai.inferers.bundle import Bundle
from endofm_monai.inferers.uncertainty import class_entropy, mask_entropy, score_margin
from endofm_monai.weights import WeightsError

__all__ = [
    "Classification",
    "Detection",
    "EndoInferTask",
    "Segmentation",
    "infer_task",
    "requested_device",
    "wanted_frame",
]


def requested_device(request: Mapping[str, Any]) -> torch.device:
    """The ``device`` of a request, by its name in torch or in the lists that MONAI Label shows; else the best one.

    Raises:
        ValueError: when there is no such device.
    """
    try:
        return torch.device(name_to_device(request.get("device")))
    except RuntimeError as error:
        raise ValueError(f"`device`: {error}") from error


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


class Classification(EndoInferTask):
    """Gives the probabilities of the classes: of the window with a frame in its middle, or of a whole video.

    A video without ``frame`` is covered by windows, whose mean it is, as in the bundle's inference.
    """

    infer_type = InferType.CLASSIFICATION

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's."""
        return self.bundle.get("preprocessing").transforms

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's."""
        return [self.bundle.get("postprocessing")]

    def _answer(self, clip: Clip, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        run = super(EndoInferTask, self).__call__
        parts = [run({**request, **item, "skip_writer": True})[1] for item in self._inputs(clip)]
        mean = torch.stack([part[self.output_label_key] for part in parts]).mean(dim=0)
        if request.get("skip_writer"):
            return None, {**parts[0], self.output_label_key: mean}
        scores = zip(self.labels, mean.tolist(), strict=True)
        prediction = [{"idx": index, "label": name, "score": score} for index, (name, score) in enumerate(scores)]
        return None, {"prediction": prediction, "label_names": self.labels}

    def _inputs(self, clip: Clip) -> list[dict[str, Any]]:
        sampling = {key: self.bundle.get(key) for key in ("num_frames", "sampling_rate")}
        crops = self.bundle.get("num_crops")
        if clip.frame is None:
            return cover_videos(
                [{"image": clip.source}], **sampling, overlap=self.bundle.get("overlap"), num_crops=crops
            )
        with open_clip(clip.source) as reader:
            length = WindowPlan(**sampling).length(reader.probe())
        start = min(max(0, clip.frame - length // 2), clip.length - length)
        return sample_videos([{"image": clip.part(start, start + length)}], 1, crops)

    def _uncertainty(self, data: dict[str, Any]) -> float:
        return float(class_entropy(data[self.output_label_key][None], self.bundle.get("multi_label"))[0])


class Detection(EndoInferTask):
    """Gives the boxes of a frame with scores: ``detections``, xyxy in pixels, and the same as polygons.

    ``score_threshold`` in a request is the smallest score; by default the bundle's ``threshold``. The network refines
    the frame by others of the bundle's ``window`` before and after it, evenly spread.
    """

    infer_type = InferType.DETECTION

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """None: the detector takes frames as they are."""
        return []

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """None: the detector gives boxes of the frame."""
        return []

    def detector(self, data: Any = None) -> Callable:
        """The bundle's detector."""
        return self.bundle.get("detector")

    def writer(self, data: Any, extension: Any = None, dtype: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Describe the boxes; there is no file."""
        threshold = float(data.get("score_threshold", self.bundle.get("threshold")))
        names = {number: name for name, number in self.labels.items()}
        found = zip(data["box"].tolist(), data["label"].tolist(), data["label_scores"].tolist(), strict=True)
        detections = [
            {"label": names[label], "score": round(score, 5), "box": [round(side, 2) for side in box]}
            for box, label, score in found
            if score >= threshold
        ]
        elements = [
            {"label": item["label"], "contours": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]}
            for item in detections
            for x1, y1, x2, y2 in [item["box"]]
        ]
        return None, {"detections": detections, "annotations": [{"annotation": {"elements": elements}}]}

    def _inputs(self, clip: Clip) -> list[dict[str, Any]]:
        frame = wanted_frame(clip)
        reach, supports = self.bundle.get("window"), self.bundle.get("num_supports")
        others = [
            index for index in range(max(0, frame - reach), min(clip.length, frame + reach + 1)) if index != frame
        ]
        chosen = np.unique(np.linspace(0, len(others) - 1, min(supports, len(others))).round().astype(int))
        with open_clip(clip.source) as reader:
            return [{"image": reader.read([frame, *(others[index] for index in chosen)])}]

    def _uncertainty(self, data: dict[str, Any]) -> float:
        return float(score_margin([data["label_scores"]], self.bundle.get("threshold"))[0])


MIN_POLYGON_AREA = 16  # pixels


class Segmentation(EndoInferTask):
    """Gives the mask of a frame as PNG of the frame's size, pixels being numbers of classes, and its polygons.

    A mask is that of the bundle's inference on the whole clip: the network gets all windows that hold the frame.
    ``output`` in a request asks for another file: ``"dsa"`` (JSON) or ``"asap"`` (XML, for QuPath).
    """

    infer_type = InferType.SEGMENTATION

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's, but for those that drop items."""
        return self.bundle.get("pre_transforms").transforms

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's, then from the clip to the frame, and to polygons."""
        contours = FindContoursd(self.output_label_key, labels=self.labels, min_poly_area=MIN_POLYGON_AREA)
        return [self.bundle.get("postprocessing"), self._keep_frame, contours]

    def writer(self, data: Any, extension: Any = None, dtype: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Write what ``output`` asks for, by default the mask."""
        data.setdefault("output", "mask")
        data.setdefault(self.output_json_key, {"annotation": {"elements": []}})  # where nothing is found
        file, result = PolygonWriter(self.output_label_key, self.output_json_key)(data)
        if file is None:
            handle, file = tempfile.mkstemp(".png")
            with os.fdopen(handle, "wb") as stream:
                Image.fromarray(np.ascontiguousarray(data[self.output_label_key].T)).save(stream, "PNG")
        return file, result

    def _inputs(self, clip: Clip) -> list[dict[str, Any]]:
        frame = wanted_frame(clip)
        window, stride = self.bundle.get("window"), self.bundle.get("stride")
        chunks = chunk_frames(clip.length, 2 * window, window, stride)
        start, stop = next((start, stop) for start, stop, first, end in chunks if first <= frame < end)
        return [{"image": clip.part(start, stop), "key_frame": frame - start}]

    def _keep_frame(self, data: dict[str, Any]) -> dict[str, Any]:
        """Masks ``(1, T, H, W)`` become that of the frame, ``(W, H)``: MONAI Label counts x first."""
        frame = data["key_frame"]
        mask = data[self.output_label_key][0, frame].cpu().numpy().T
        return {**data, self.output_label_key: mask, "probability": data["probability"][:, frame]}

    def _uncertainty(self, data: dict[str, Any]) -> float:
        return float(mask_entropy(data["probability"])[0])


def infer_task(bundle: Bundle) -> EndoInferTask:
    """The infer task of a bundle."""
    kinds: dict[str, type[EndoInferTask]] = {
        "segmentation": Segmentation,
        "detection": Detection,
        "classification": Classification,
    }
    return kinds[bundle.task](bundle)
