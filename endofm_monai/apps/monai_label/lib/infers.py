# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.transform.writer import PolygonWriter
from monailabel.utils.others.label_colors import get_color
from PIL import Image

from endofm_monai.apps.active_learning import select_frames
from endofm_monai.apps.monai_label.lib.clips import find_clip, frame_number, until_changed
from endofm_monai.apps.monai_label.lib.requests import InferRequest, SampleRequest, ScoringRequest, parse
from endofm_monai.data import ClipReadError, open_clip
from endofm_monai.formats import mask_polygons
from endofm_monai.inferers import Answer, Bundle, Predictor
from endofm_monai.utils import PathLike, sha256
from endofm_monai.weights import WeightsError

logger = logging.getLogger(__name__)

INFO_KEY = "uncertainty"  # in the datastore's information on an image: of each model the score, and by which weights


class EndoInferTask(InferTask):
    """Asks the predictor of a bundle about one frame: the answer is that of the bundle's inference for the whole clip.

    It answers one request at a time, by the weights that are newest then. A request has ``image``, a path; for a video
    ``frame``, its number from 0, without which a classifier answers for the whole video; and ``context``: False shows
    the network nothing but the frame itself.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(InferType(bundle.task), bundle.labels, 2, bundle.description, {"context": True})
        self.bundle = bundle
        self.predictor: Predictor = bundle.get("predictor")
        self._lock = threading.Lock()
        self._loaded: tuple[Any, ...] = ()

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Answer a request with a file (of a mask) or None, and JSON; an ``HTTPException`` says why that cannot be."""
        start = time.perf_counter()
        asked = parse(InferRequest, request)
        file, result = WRITERS[self.bundle.task](self.bundle, self.answer(asked), asked)
        seconds = round(time.perf_counter() - start, 2)
        return file, {**result, "label_names": self.labels, "latencies": {"total": seconds}}

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return {**super().info(), "version": self.bundle.version, "endoscopy": True}

    def score(self, image: str) -> float:
        """Uncertainty about a frame, or about a video as a whole, from 0 to 1."""
        return self.predictor.uncertainty(self.answer(InferRequest(image=image)))

    def answer(self, asked: InferRequest) -> Answer:
        """What the predictor says."""
        with self._lock:
            try:
                source, place = find_clip(asked.image, asked.frame, asked.context)
                self._load_weights(asked.device)
                return self._of_video(source) if place is None else self.predictor.at(source, place)
            except (ClipReadError, WeightsError) as error:
                raise HTTPException(400, str(error)) from error

    def _of_video(self, source: Any) -> Answer:
        """The mean over the windows of a video."""
        with open_clip(source) as reader:
            if self.bundle.task != "classification":
                last = reader.probe().frames - 1
                raise ClipReadError(f"{os.path.basename(source)}: is a video; say which `frame`, from 0 to {last}")
            windows = [answer["probabilities"] for _, answer in self.predictor.pieces(reader)]
        return {"probabilities": torch.stack(windows).mean(dim=0)}

    def _load_weights(self, device: torch.device) -> None:
        weights = self.bundle.weights
        current = (device, weights, weights and os.stat(weights).st_ctime_ns)
        if current != self._loaded:
            self._loaded = ()  # should this fail, the next request tries again
            self.bundle.load_weights(self.predictor.network)
            self.predictor.network.to(device)
            self.predictor.amp = self.bundle.get("amp") and device.type == "cuda"
            self._loaded = current


def write_mask(bundle: Bundle, answer: Answer, asked: InferRequest) -> tuple[str, dict[str, Any]]:
    """Write the mask as PNG of the frame's size, 0 for background and 1 for foreground, and give its polygons.

    ``output`` in a request asks for another file: ``"dsa"`` (JSON) or ``"asap"`` (XML, for QuPath).
    """
    mask = answer["mask"][0].numpy()
    elements = []
    for name, number in bundle.labels.items():
        outlines = mask_polygons(mask == number, tolerance=0.5, min_area=16) if number else []
        if outlines:
            elements.append({"label": name, "contours": [list(zip(o[::2], o[1::2], strict=True)) for o in outlines]})
    colors = {element["label"]: get_color(element["label"], None) for element in elements}
    annotation = {"elements": elements, **({"labels": colors} if colors else {})}
    file, result = PolygonWriter("pred")({**asked.model_dump(), "result": {"annotation": annotation}})
    if file is None:
        handle, file = tempfile.mkstemp(".png")
        with os.fdopen(handle, "wb") as stream:
            Image.fromarray(np.ascontiguousarray(mask)).save(stream, "PNG")
    return file, result


def write_boxes(bundle: Bundle, answer: Answer, asked: InferRequest) -> tuple[None, dict[str, Any]]:
    """Give the boxes of at least the ``score_threshold``, or the bundle's, xyxy in pixels, also as polygons."""
    threshold = bundle.get("threshold") if asked.score_threshold is None else asked.score_threshold
    names = {number: name for name, number in bundle.labels.items()}
    detections, elements = [], []
    for box, label, score in zip(*(answer[key].tolist() for key in ("box", "label", "label_scores")), strict=True):
        if score >= threshold:
            x1, y1, x2, y2 = sides = [round(side, 2) for side in box]
            detections.append({"label": names[label], "score": round(score, 5), "box": sides})
            elements.append({"label": names[label], "contours": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]})
    return None, {"detections": detections, "annotations": [{"annotation": {"elements": elements}}]}


def write_classes(bundle: Bundle, answer: Answer, asked: InferRequest) -> tuple[None, dict[str, Any]]:
    """Give the probabilities of the classes."""
    scores = zip(bundle.labels.items(), answer["probabilities"].tolist(), strict=True)
    return None, {"prediction": [{"idx": index, "label": name, "score": score} for (name, index), score in scores]}


Writer = Callable[[Bundle, Answer, InferRequest], tuple[str | None, dict[str, Any]]]
WRITERS: dict[str, Writer] = {"segmentation": write_mask, "detection": write_boxes, "classification": write_classes}


class Uncertainty(ScoringMethod):
    """Scores images without label by how uncertain a model is about them, from 0 to 1, each once by the same weights.

    ``max_samples`` in a request limits the number.
    """

    def __init__(self, task: EndoInferTask) -> None:
        self.task, self.name = task, task.bundle.name
        super().__init__(f"Uncertainty of {self.name} about images without label")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score; the result counts images, and says which ones could not be scored."""
        limit, scored, failed = parse(ScoringRequest, request).max_samples, 0, {}
        for image in datastore.get_unlabeled_images():
            weights = _weights_hash(self.task)  # a training may end meanwhile
            if _score(datastore, image, self.name, weights) is not None:
                continue
            if limit and scored == limit:  # what fails does so each time, and is not counted
                break
            try:
                score = self.task.score(datastore.get_image_uri(image))
                scores = datastore.get_image_info(image).get(INFO_KEY, {})
                datastore.update_image_info(image, {INFO_KEY: {**scores, self.name: [round(score, 6), weights]}})
                scored += 1
            except HTTPException as error:  # perhaps it has been removed meanwhile
                failed[image] = error.detail
        logger.info(f"{self.name}: scored {scored} images, failed on {len(failed)}.")
        return {"scored": scored, "failed": failed}


class UncertainFrames(Strategy):
    """Gives the image that the model is most uncertain about, by scores of :class:`Uncertainty` of the weights in use.

    It is of a part of a video where nothing is annotated yet, of as many frames as the ``window`` of a request; when
    each has an annotation, any image without label is given.
    """

    def __init__(self, task: EndoInferTask) -> None:
        self.task, self.name = task, task.bundle.name
        super().__init__(f"Image that {self.name} is most uncertain about, one a part of a video")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose, among the images that have a score; an ``HTTPException`` says that none has."""
        unlabeled, weights = set(datastore.get_unlabeled_images()), _weights_hash(self.task)
        known = {image: _score(datastore, image, self.name, weights) for image in unlabeled}
        scored = {image: score for image, score in known.items() if score is not None}
        if unlabeled and not scored:
            ask = f"POST /scoring/{self.name}, which also says what it cannot score"
            raise HTTPException(
                400, f"None of {len(unlabeled)} images without label has a score by the weights in use: {ask}."
            )
        images = [image for image in datastore.list_images() if image in scored or image not in unlabeled]
        scores = [scored.get(image, 0.0) for image in images]
        labeled = [index for index, image in enumerate(images) if image not in unlabeled]
        places = map(frame_number, map(datastore.get_image_uri, images))
        parts = [(clip, number // parse(SampleRequest, request).window) for clip, number in places]
        chosen = select_frames(scores, 1, parts, labeled) or select_frames(scores, 1, images, labeled)
        return {"id": images[chosen[0]], "weight": scores[chosen[0]]} if chosen else None


def _score(datastore: Datastore, image: str, model: str, weights: str) -> float | None:
    """The score of an image by the weights of a hash, of others None: scores of different weights do not compare."""
    score, used = datastore.get_image_info(image).get(INFO_KEY, {}).get(model, (None, None))
    return score if used == weights else None


def _weights_hash(task: EndoInferTask) -> str:
    weights = task.bundle.weights
    return _sha256(weights) if weights else ""


@until_changed
def _sha256(weights: PathLike) -> str:
    return sha256([weights])
