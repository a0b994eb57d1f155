# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from endofm_monai.apps.active_learning import select_frames
from endofm_monai.apps.monai_label.lib.clips import frame_number
from endofm_monai.apps.monai_label.lib.infers import EndoInferTask
from endofm_monai.apps.monai_label.lib.requests import SampleRequest, ScoringRequest, parse

logger = logging.getLogger(__name__)

INFO_KEY = "uncertainty"  # in the datastore's information on an image: of each model the score, and by which weights


class Uncertainty(ScoringMethod):
    """Scores images without label by how uncertain a model is about them, from 0 to 1, once by the same weights."""

    def __init__(self, task: EndoInferTask) -> None:
        self.task, self.name = task, task.bundle.name
        super().__init__(f"Uncertainty of {self.name} about images without label")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score; the result counts images, and says which ones could not be scored."""
        weights, scored, failed = self.task.bundle.weights, 0, {}
        version, limit = str(weights and weights.stat().st_mtime_ns), parse(ScoringRequest, request).max_samples
        due = [image for image in datastore.get_unlabeled_images() if _score(datastore, image, self.name)[1] != version]
        for image in due:
            if limit and scored == limit:  # what fails does so each time, and is not counted
                break
            try:
                score = self.task.score(datastore.get_image_uri(image))
                scores = datastore.get_image_info(image).get(INFO_KEY, {})
                datastore.update_image_info(image, {INFO_KEY: {**scores, self.name: [round(score, 6), version]}})
                scored += 1
            except HTTPException as error:  # perhaps it has been removed meanwhile
                failed[image] = error.detail
        logger.info(f"{self.name}: scored {scored} images, failed on {len(failed)}.")
        return {"scored": scored, "failed": failed}


class UncertainFrames(Strategy):
    """Gives the image that the model is most uncertain about, by the scores of :class:`Uncertainty`.

    It is of a part of a video, as long as the ``window`` of a request, where nothing is annotated yet, if one is left.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"Image that {name} is most uncertain about, one a part of a video")
        self.name = name

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose, among the images that have a score; an ``HTTPException`` says that none has."""
        unlabeled = set(datastore.get_unlabeled_images())
        scored = {image: score for image in unlabeled if (score := _score(datastore, image, self.name)[0]) is not None}
        if unlabeled and not scored:
            raise HTTPException(400, f"No image has a score yet: POST /scoring/{self.name} before.")
        images = [image for image in datastore.list_images() if image in scored or image not in unlabeled]
        scores = [scored.get(image, 0.0) for image in images]
        labeled = [index for index, image in enumerate(images) if image not in unlabeled]
        places = map(frame_number, map(datastore.get_image_uri, images))
        parts = [(clip, number // parse(SampleRequest, request).window) for clip, number in places]
        chosen = select_frames(scores, 1, parts, labeled) or select_frames(scores, 1, images, labeled)
        return {"id": images[chosen[0]], "weight": scores[chosen[0]]} if chosen else None


def _score(datastore: Datastore, image: str, model: str) -> Sequence[Any]:
    """The score of an image, and by which weights, or None twice."""
    return datastore.get_image_info(image).get(INFO_KEY, {}).get(model, (None, None))
