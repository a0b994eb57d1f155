# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from endofm_monai.preparation import move_paths, run_from_command_line, write_lists
from endofm_monai.preparation.index import read_prepared, relative

NAMES = ("video", "group")  # of an item, which mean something in its own set alone


def merge_datalists(
    *folders: str,
    output: str,
    weight: dict[str, float] | None = None,
    sections: tuple[str, ...] = ("training",),
    keep_labels: bool = False,
) -> str:
    """Merge prepared datasets into one list for pre-training, or for a task if labels are kept.

    Its paths are relative to the folder that all of them lie in, which is printed.

    Args:
        folders: outputs of ``prepare.py``.
        output: JSON file to write, whose path is given back.
        weight: for each folder, by its name or path, how often an epoch sees its clips, 1 by default: with 0.5 each
            epoch sees half of them, the next one the other half; with 2 it sees all of them twice. The list holds all
            clips, with their ``weight`` for :class:`endofm_monai.data.EpochSampler`.
        sections: sections to take. Leave out those that anything is tested on.
        keep_labels: keep the labels, boxes and masks of the clips, which pre-training does not need, and the sections;
            otherwise all clips are for training.
    """
    if not folders:
        raise ValueError("folders: expected one or more that a `prepare.py` made, found none")
    sections, weights = ensure_tuple(sections), _weights(folders, weight or {})
    sets = {folder: read_prepared(folder) for folder in folders}
    data = {folder: path.resolve() for folder, (_, _, path) in sets.items()}
    root = Path(os.path.commonpath(list(data.values())))
    lists = {folder: content for folder, (_, content, _) in sets.items()}
    labels = _labels(lists, sections) if keep_labels else {}
    items: dict[str, list[dict[str, Any]]] = {}
    shares = {}
    above = os.path.commonpath([Path(folder).resolve() for folder in folders])
    folders_of = Counter(name for content in lists.values() for name in _names(content, sections))
    sets_of = Counter(manifest["name"] for manifest, _, _ in sets.values())
    for folder, (manifest, content, _) in sets.items():
        place, source = relative(Path(folder).resolve(), above), manifest["name"]
        source += f" ({place})" if sets_of[source] > 1 else ""
        clips = [(section, item) for section in sections for item in content.get(section, [])]
        shares[source] = {"clips": len(clips), "weight": weights[folder]}
        for section, item in clips:
            merged = {**(item if keep_labels else {}), "source": source}
            if weights[folder] != 1 and (section == "training" or not keep_labels):
                merged["weight"] = weights[folder]
            for key in NAMES:
                if folders_of[key, str(merged.get(key))] > 1:  # others have videos, or patients, of this name
                    merged[key] = f"{place}/{merged[key]}"
            for key in ("image", *({"mask"} & merged.keys())):
                merged[key] = move_paths(item[key], data[folder], root)
            items.setdefault(section if keep_labels else "training", []).append(merged)
    if not items:
        raise ValueError(f"{', '.join(folders)}: no clips in {', '.join(sections)}")
    about = {"name": "pre-training", "sources": shares, **({"labels": labels} if labels else {})}
    write_lists(Path(output), {**about, **items})
    counts = ", ".join(f"{name}: {each['clips']} x {each['weight']:g}" for name, each in shares.items())
    print(f"{sum(map(len, items.values()))} clips ({counts}); use them with --dataset_dir {root} --datalist {output}")
    return output


def _weights(folders: Sequence[str], given: Any) -> dict[str, float]:
    """The weight of each folder; they are given by the folders' names or paths."""
    if not isinstance(given, dict):
        raise ValueError(f"weight: expected numbers by folder, as '{{\"DIR\": 0.5}}', found {given!r}")
    weights = dict.fromkeys(folders, 1.0)
    for name, value in given.items():
        named = [folder for folder in folders if name in (folder, Path(folder).name)]
        if len(named) != 1 or not (isinstance(value, (int, float)) and value > 0):
            names = ", ".join(folders)
            raise ValueError(f"weight: expected a positive number for one of {names}, found {name}: {value}")
        weights[named[0]] = float(value)
    return weights


def _labels(lists: dict[str, dict[str, Any]], sections: Sequence[str]) -> dict[str, str]:
    """Names of the classes, none where clips and boxes have others; refuses sets, by folder, whose numbers differ."""
    meanings: dict[tuple[str, str], tuple[str, str]] = {}  # name of each class, and the folder that states it
    for folder, content in lists.items():
        for key in {"label", "box_label"}.intersection(key for item in _items(content, sections) for key in item):
            for number, name in content.get("labels", {}).items():
                if (other := meanings.setdefault((key, number), (name, folder)))[0] != name:
                    raise ValueError(f"{folder}: `{key}` {number} is {name!r} here, but {other[0]!r} in {other[1]}")
    labels = {number: name for (_, number), (name, _) in meanings.items()}
    return labels if all(labels[number] == name for (_, number), (name, _) in meanings.items()) else {}


def _names(content: dict[str, Any], sections: Sequence[str]) -> set[tuple[str, str]]:
    items = _items(content, sections)
    return {(key, str(item[key])) for item in items for key in NAMES if item.get(key) not in (None, "")}


def _items(content: dict[str, Any], sections: Sequence[str]) -> list[dict[str, Any]]:
    return [item for section in sections for item in content.get(section, [])]


if __name__ == "__main__":
    run_from_command_line(merge_datalists)
