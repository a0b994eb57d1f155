# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import json
import re

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from endofm_monai.data import split_frames
from endofm_monai.metrics import bootstrap_intervals, classification_scores
from endofm_monai.utils import run_from_command_line


def cross_validate(*embeddings: str, group: str = "(.*)") -> dict[str, dict[str, object]]:
    """Judge embeddings by a linear probe on all clips, each predicted by a probe that has seen no clip of its group.

    Where a validation list has a handful of clips this says more: every clip is predicted once. The probe is that of
    :func:`endofm_monai.metrics.linear_probe`, with nothing to tune.

    Args:
        embeddings: ``.npz`` files that an ``EmbeddingSaver`` wrote; all of their clips need labels.
        group: regular expression whose first group names, in a clip's path, the sequence or patient.

    Returns:
        the scores of :func:`endofm_monai.metrics.classification_scores` over all clips, each with its 95 % interval by
        the bootstrap over groups.

    Raises:
        ValueError: when a clip has no label, or its path no group.
    """
    files = [np.load(path) for path in embeddings]
    features, labels, paths = (
        np.concatenate([file[name] for file in files]) for name in ("embeddings", "labels", "paths")
    )
    if (labels < 0).any():
        raise ValueError(f"{paths[labels < 0][0]} has no label.")
    if missing := sorted({*range(labels.max() + 1)} - {*labels.tolist()}):
        raise ValueError(f"{embeddings[0]}: no clip is of class {missing[0]}, though there are higher ones.")
    if not re.compile(group).groups:
        raise ValueError(f"`group` must hold parentheses around what names a group, found {group!r}.")
    found = [re.search(group, split_frames(str(path))[0]) for path in paths]
    if None in found:
        raise ValueError(f"The expression {group!r} does not match {paths[found.index(None)]}.")
    groups = np.array([match[1] for match in found if match])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=10_000))
    probabilities = cross_val_predict(
        probe, features, labels, groups=groups, cv=LeaveOneGroupOut(), method="predict_proba"
    )
    scores = classification_scores(probabilities, labels)
    intervals = bootstrap_intervals(lambda items: classification_scores(probabilities[items], labels[items]), groups)
    return {
        "data": {
            "clips": len(labels),
            "groups": len(np.unique(groups)),
            "clips_by_class": np.bincount(labels).tolist(),
        },
        **{name: {"value": value, "interval": intervals[name]} for name, value in scores.items()},
    }


if __name__ == "__main__":
    run_from_command_line(cross_validate, serialize=lambda result: json.dumps(result, indent=4))
