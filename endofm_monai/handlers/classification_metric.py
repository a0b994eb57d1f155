# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

from ignite.engine import Engine, Events

from endofm_monai.handlers.clip_predictions import ClipPredictions
from endofm_monai.metrics import classification_scores

__all__ = ["ClassificationMetric"]


class ClassificationMetric:
    """Key metric of a MONAI evaluator: a score of the predictions, one a video.

    The prediction for a video is the mean of the class probabilities of its clips. All scores of
    :func:`endofm_monai.metrics.classification_scores` are set in ``engine.state.metrics``, as ``video_f1`` and for the
    clips on their own as ``clip_f1``; those that are undefined are left out.

    Args:
        score: the score that the evaluator compares, for example ``"f1"`` or ``"macro_f1"``.
    """

    def __init__(self, score: str) -> None:
        self.score = score
        self._predictions = ClipPredictions()

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an evaluator, as its metric ``name``."""
        self._predictions.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.compute, name)

    def compute(self, engine: Engine, name: str) -> None:
        """Set the metrics; with several processes, all must call it.

        Raises:
            ValueError: when there is no such score, or it is undefined for the clips that were evaluated.
        """
        videos, clips = self._predictions.videos(), self._predictions.clips()
        scores = classification_scores(videos.probabilities, videos.labels)
        if self.score not in scores:
            raise ValueError(f"There is no score {self.score!r} for these classes; there are {', '.join(scores)}.")
        if math.isnan(scores[self.score]):
            raise ValueError(
                f"The score {self.score!r} is undefined for the {len(videos)} videos of the evaluation: they do not "
                "hold all classes that it needs. Add such videos, or choose another score."
            )
        engine.state.metrics[name] = scores[self.score]
        levels = {"video": scores, "clip": classification_scores(clips.probabilities, clips.labels)}
        for level, values in levels.items():
            engine.state.metrics.update({f"{level}_{k}": v for k, v in values.items() if not math.isnan(v)})
