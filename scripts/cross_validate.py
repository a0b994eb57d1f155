# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import json
import re
import zipfile

import numpy as np
from fire.decorators import SetParseFn
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from endofm_monai.data import split_frames
from endofm_monai.metrics import bootstrap_intervals, classification_scores
from endofm_monai.metrics.probe import linear_classifier
from endofm_monai.utils import run_from_command_line

ARRAYS = ("embeddings", "labels", "paths")


@SetParseFn(str)  # or fire would take the parentheses of "(seq)" for Python's
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
    """
    try:
        has_group = re.compile(group).groups
    except re.error as error:
        raise ValueError(f"`group` must be a regular expression, found {group!r} ({error}).") from error
    if not has_group:
        raise ValueError(f"`group` must hold parentheses around what names a group, found {group!r}.")
    if not embeddings:
        raise ValueError("There is nothing to judge: name one or more `.npz` files of embeddings.")
    files = [_read(path) for path in embeddings]
    width = files[0][0].shape[1]
    if other := [path for path, file in zip(embeddings, files, strict=True) if file[0].shape[1] != width]:
        raise ValueError(f"{other[0]}: its embeddings are of another width than those of {embeddings[0]}.")
    features, labels, paths = map(np.concatenate, zip(*files, strict=True))
    if missing := sorted({*range(labels.max() + 1)} - {*labels.tolist()}):
        raise ValueError(f"{embeddings[0]}: no clip is of class {missing[0]}, though there are higher ones.")
    named = [match and match[1] for match in (re.search(group, split_frames(str(path))[0]) for path in paths)]
    if None in named:
        raise ValueError(f"The expression {group!r} finds no group in {paths[named.index(None)]}.")
    groups = np.array(named)
    if alone := [str(name) for name in np.unique(groups) if len({*labels[groups != name].tolist()}) < 2]:
        needed = "clips of two classes are needed beside those of each group"
        raise ValueError(f"{embeddings[0]}: {needed}, as {alone[0]!r}.")
    folds = LeaveOneGroupOut().split(features, labels, groups)
    probabilities = cross_val_predict(linear_classifier(), features, labels, cv=folds, method="predict_proba")
    scores = classification_scores(probabilities, labels)
    intervals = bootstrap_intervals(lambda items: classification_scores(probabilities[items], labels[items]), groups)
    data = {"clips": len(labels), "groups": len(np.unique(groups)), "clips_by_class": np.bincount(labels).tolist()}
    return {"data": data, **{name: {"value": value, "interval": intervals[name]} for name, value in scores.items()}}


def _read(path: str) -> list[np.ndarray]:
    """The arrays of a file of embeddings, which belong to labeled clips."""
    try:
        with np.load(path) as file:
            features, labels, paths = arrays = [file[name] for name in ARRAYS]
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: must be an `.npz` file with {', '.join(ARRAYS)} ({reason}).") from error
    fits = features.ndim == 2 and len(features) > 0 and labels.shape == paths.shape == features.shape[:1]
    if not fits or features.dtype.kind != "f" or labels.dtype.kind != "i":
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"{path}: {', '.join(ARRAYS)} must be (N, D), N class indices and N texts, found {shapes}.")
    if not np.isfinite(features).all():
        raise ValueError(f"{path}: holds embeddings that are not finite.")
    if (labels < 0).any():
        raise ValueError(f"{path}: {paths[labels < 0][0]} has no class index as label.")
    return arrays


if __name__ == "__main__":
    run_from_command_line(cross_validate, serialize=lambda result: json.dumps(result, indent=4))
