# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import itertools
import math
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from comparison.run import Run
from comparison.schema import Comparison, Task, read_comparison
from comparison.tables import write_tables

import endofm_monai
from endofm_monai.data import load_datalist, split_frames
from endofm_monai.utils import INTERRUPTED, cause_of, read_json, run_from_command_line, write_json
from endofm_monai.utils.settings import top_key

BUNDLES = Path(endofm_monai.__file__).parents[1] / "bundle"
NEEDED = {"classification": ["label"], "segmentation": ["mask"], "detection": ["box", "box_label"]}  # of each item


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
    comparison = read_comparison(Path(config))
    output = Path(comparison.output)
    runs, failed = plan(comparison, output), list[str]()
    for number, run in enumerate(runs, start=1):
        try:
            value = run.execute().get("value")
        except KeyboardInterrupt:
            print(f"stopped at run {number} of {len(runs)}; the same command goes on there", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except RuntimeError as error:
            failed.append(f"{run.title}: {cause_of(error)}")
            print(f"{number}/{len(runs)}  {failed[-1]}", file=sys.stderr)
            continue
        outcome = "trained" if run.score is None else f"{run.score} {'undefined' if value is None else f'{value:.4f}'}"
        print(f"{number}/{len(runs)}  {run.title}: {outcome}", flush=True)
        write_tables(runs, output)
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed, the first one: {failed[0]}")
    print(f"The table: {output / 'comparison.md'}")


def plan(comparison: Comparison, output: Path) -> list[Run]:
    """All runs of a comparison, pre-trainings first."""
    runs: list[Run] = []
    for (name, made), seed in itertools.product(comparison.pretrainings.items(), comparison.seeds):
        folder, settings = output / "pretrainings" / name / f"seed{seed}", {**comparison.settings, **made.settings}
        bundle = BUNDLES / "endofm_pretraining"
        runs.append(Run(("pretraining", name, seed), folder, bundle, made.configs, {**settings, "seed": seed}))
    pretrained = {run.names[1:]: run for run in runs}
    for (name, task), share in itertools.product(comparison.tasks.items(), comparison.shares):
        of_task = {**comparison.settings, **task.settings, **task.shares.get(share, {})}
        listed = check_data(task, of_task)
        for (start, of_start), seed in itertools.product(comparison.starts.items(), comparison.seeds):
            if name not in (of_start.tasks or [name]):
                continue
            part = output / "lists" / name / f"{share}_{seed}.json"
            datalist = write_share(listed, share, seed, task.bundle == "classification", part)
            settings = {**of_task, **of_start.settings, "seed": seed, "datalist": datalist}
            pretraining = pretrained.get((of_start.pretraining, seed))
            if pretraining is not None:
                settings["backbone_weights"] = str(pretraining.weights)
            names, bundle = (name, share, start, seed), BUNDLES / f"endofm_polyp_{task.bundle}"
            folder = output / "runs" / name / f"{share}" / start / f"seed{seed}"
            configs = [*task.configs, *of_start.configs]
            runs.append(
                Run(names, folder, bundle, configs, settings, task.training, task.evaluation, task.score, pretraining)
            )
    files = {run.bundle / "configs" / f"{name}.json" for run in runs for name in [*run.configs, *run.training]}
    if missing := sorted(str(file) for file in files if not file.is_file()):
        raise ValueError(f"{missing[0]}: is named in `configs` or `training`, but is no file.")
    for run in runs:
        if run.names[-1] == comparison.seeds[0]:  # those of other seeds have the same settings
            run.check()
    return runs


def check_data(task: Task, settings: dict[str, Any]) -> str:
    """Refuse data of a task that its training or evaluation would miss, and give its datalist."""
    listed = str(settings.get("datalist") or f"{settings['dataset_dir']}/datalist.json")
    load_datalist(settings["dataset_dir"], listed, label_key="", required=NEEDED[task.bundle])
    judged = {"val_section": "test", "datalist": listed, **settings, **task.evaluation}
    if not any(top_key(key) == "validate" for key in judged):  # which may name other data
        place = judged["dataset_dir"], judged["datalist"] or listed, judged["val_section"]
        load_datalist(*place, label_key="", required=NEEDED[task.bundle])
    return listed


def write_share(datalist: str, share: float, seed: int, by_class: bool, path: Path) -> str:
    """Write a list with a share of the training's videos, perhaps of each class; smaller shares lie in larger ones.

    Clips of one ``group`` or ``video`` stay together.
    """
    content = read_json(datalist, dict)
    videos: dict[str, list[dict[str, Any]]] = {}
    for item in content["training"]:
        image = item["image"]
        of = (item.get("group"), item.get("video"), split_frames(image)[0] if isinstance(image, str) else image)
        videos.setdefault(next(str(each) for each in of if each not in (None, "")), []).append(item)
    classes: dict[Any, list[str]] = {}
    for name, items in sorted(videos.items()):
        classes.setdefault(str(items[0]["label"]) if by_class else None, []).append(name)
    rng = np.random.default_rng(seed)
    taken = list[str]()
    for names in classes.values():
        count = math.ceil(round(share * len(names), 6))  # 0.07 * 100 is a little more than 7
        taken += rng.permutation(names)[:count].tolist()
    content["training"] = [item for name in sorted(taken) for item in videos[name]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return str(path)


if __name__ == "__main__":
    run_from_command_line(compare)
