# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import itertools
import math
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from comparison.run import SCORES, Run
from comparison.tables import write_tables
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

import endofm_monai
from endofm_monai.data import split_frames
from endofm_monai.utils import INTERRUPTED, cause_of, nearest_key, read_json, run_from_command_line, write_json

BUNDLES = Path(endofm_monai.__file__).parents[1] / "bundle"
KEYS = {  # of a comparison's parts
    "pretrainings": {"configs", "settings"},
    "starts": {"pretraining", "configs", "settings", "tasks"},
    "tasks": {"bundle", "configs", "training", "settings", "shares", "evaluation", "score"},
}
TOP = {*KEYS, "output", "settings", "seeds", "shares"}


def compare(config: str) -> None:
    """Compare starting points of fine-tuning: every start on every task with every seed and share of the labels.

    All are trained and evaluated by the bundles' own configurations, each in a process and a folder of its own. The
    same command again goes on where it was stopped; what failed is tried again.

    In the ``output`` folder, ``comparison.csv`` and ``comparison.md`` have the mean of the seeds, their standard
    deviation, and the 95 % interval over the test's videos or groups (the mean of the seeds' lower and upper ends);
    ``comparison.png`` shows them, and ``comparison.json`` has each run with all its settings and the hashes of its
    files.

    Args:
        config: YAML file; ``scripts/compare.yaml`` explains what it may say.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way to say Ctrl+C
    content = read_comparison(Path(config))
    output = Path(content["output"])
    runs, failed = plan(content, output), list[str]()
    for number, run in enumerate(runs, start=1):
        try:
            result = run.execute()
        except KeyboardInterrupt:
            print(f"stopped at run {number} of {len(runs)}; the same command goes on there", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except RuntimeError as error:
            failed.append(f"{run.title}: {cause_of(error)}")
            print(f"{number}/{len(runs)}  {failed[-1]}", file=sys.stderr)
            continue
        value = result.get("value")
        outcome = "trained" if run.score is None else f"{run.score} {'undefined' if value is None else f'{value:.4f}'}"
        print(f"{number}/{len(runs)}  {run.title}: {outcome}", flush=True)
        write_tables(runs, output)
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed, the first one: {failed[0]}")
    print(f"The table: {output / 'comparison.md'}")


def read_comparison(path: Path) -> dict[str, Any]:
    """Read a comparison, and check what can be before the first run."""
    content = ConfigParser.load_config_file(str(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(content).__name__}.")
    check_keys(content, TOP, f"{path}:")
    if missing := sorted({"output", "starts", "tasks"} - content.keys()):
        raise ValueError(f"{path}: `{missing[0]}` is missing.")
    for part, known in KEYS.items():
        for name, value in content.setdefault(part, {}).items():
            content[part][name] = value = value or {}
            check_keys(value, known, f"{path}: {part}, {name}:")
    if wrong := [share for share in content.setdefault("shares", [1.0]) if not 0 < share <= 1]:
        raise ValueError(f"{path}: `shares` must be above 0 and at most 1, found {wrong[0]}.")
    for name, task in content["tasks"].items():
        if task.get("bundle") not in SCORES:
            raise ValueError(f"{path}: tasks, {name}: `bundle` must be one of {', '.join(SCORES)}, found {task}.")
        if unknown := [share for share in task.get("shares", {}) if share not in content["shares"]]:
            raise ValueError(f"{path}: tasks, {name}: `shares` has settings for {unknown[0]}, which is not compared.")
    for name, start in content["starts"].items():
        for key, known in (("pretraining", content["pretrainings"]), ("tasks", content["tasks"])):
            if unknown := [each for each in ensure_tuple(start.get(key, ())) if each not in known]:
                raise ValueError(f"{path}: starts, {name}: `{key}` names {unknown[0]}, there are {', '.join(known)}.")
        weights = start.get("settings", {}).get("backbone_weights")
        if weights is not None and not Path(weights).is_file():
            raise ValueError(f"{path}: starts, {name}: {weights} is no file.")
    return {"seeds": [0], **content}


def check_keys(found: dict[str, Any], known: Collection[str], where: str) -> None:
    """Refuse a key that would be without effect."""
    for key in found:
        if key not in known:
            raise ValueError(f"{where} there is no key `{key}`.{nearest_key(key, known)}")


def plan(content: dict[str, Any], output: Path) -> list[Run]:
    """All runs of a comparison, pre-trainings first."""
    common = content.get("settings", {})
    runs: list[Run] = []
    for (name, made), seed in itertools.product(content["pretrainings"].items(), content["seeds"]):
        runs.append(
            Run(
                ("pretraining", name, seed),
                output / "pretrainings" / name / f"seed{seed}",
                BUNDLES / "endofm_pretraining",
                made.get("configs", ["train"]),
                {**common, **made.get("settings", {}), "seed": seed},
            )
        )
    pretrained = {run.names[1:]: run for run in runs}
    shares = map(float, content["shares"])
    cells = itertools.product(content["tasks"].items(), shares, content["starts"].items(), content["seeds"])
    for (task, of_task), share, (start, of_start), seed in cells:
        if task not in of_start.get("tasks", content["tasks"]):
            continue
        of_both = {**of_task.get("settings", {}), **of_task.get("shares", {}).get(share, {})}
        settings = {**common, **of_both, **of_start.get("settings", {}), "seed": seed}
        pretraining = pretrained[of_start["pretraining"], seed] if "pretraining" in of_start else None
        if pretraining is not None:
            settings["backbone_weights"] = str(pretraining.weights)
        if "dataset_dir" not in settings:
            raise ValueError(f"tasks, {task}: `settings` must name the `dataset_dir`.")
        listed = settings.get("datalist", f"{settings['dataset_dir']}/datalist.json")
        share_file = output / "lists" / task / f"{share}_{seed}.json"
        settings["datalist"] = write_share(listed, share, seed, of_task["bundle"] == "classification", share_file)
        runs.append(
            Run(
                (task, share, start, seed),
                output / "runs" / task / f"{share}" / start / f"seed{seed}",
                BUNDLES / f"endofm_polyp_{of_task['bundle']}",
                [*of_task.get("configs", ["train"]), *of_start.get("configs", [])],
                settings,
                of_task.get("training", []),
                of_task.get("evaluation", {}),
                of_task.get("score", SCORES[of_task["bundle"]][0]),
                pretraining,
            )
        )
    files = {run.bundle / "configs" / f"{name}.json" for run in runs for name in [*run.configs, *run.training]}
    if missing := sorted(str(file) for file in files if not file.is_file()):
        raise ValueError(f"{missing[0]}: is named in `configs` or `training`, but is no file.")
    return runs


def write_share(datalist: str, share: float, seed: int, by_class: bool, path: Path) -> str:
    """Write a list with a share of the training's videos, perhaps of each class; smaller shares lie in larger ones.

    Clips of one ``group`` or ``video`` stay together.
    """
    content = read_json(datalist, dict)
    videos: dict[str, list[dict[str, Any]]] = {}
    for item in content["training"]:
        image = item["image"]
        video = item.get("group") or item.get("video") or (split_frames(image)[0] if isinstance(image, str) else image)
        videos.setdefault(str(video), []).append(item)
    classes: dict[Any, list[str]] = {}
    for name, items in sorted(videos.items()):
        classes.setdefault(str(items[0]["label"]) if by_class else None, []).append(name)
    rng = np.random.default_rng(seed)
    taken = [name for names in classes.values() for name in rng.permutation(names)[: math.ceil(share * len(names))]]
    content["training"] = [item for name in sorted(taken) for item in videos[name]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return str(path)


if __name__ == "__main__":
    run_from_command_line(compare)
