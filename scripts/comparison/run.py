# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""A training and the evaluation of what it gives, measured, in a folder of its own."""

import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import endofm_monai
from endofm_monai.handlers.checkpoint import STOP_CODE
from endofm_monai.metrics import classification_scores, detection_report
from endofm_monai.metrics.segmentation import SCORES as FRAME_SCORES
from endofm_monai.preparation import claim_settings
from endofm_monai.utils import as_class_names, check_settings, literal_texts, read_json, sha256, write_json

SCORES = {  # of a task: the usual one, the file that its bundle reports them in, and the keys where they stand in it
    "classification": ("f1", "metrics.json", ("video", "scores")),
    "segmentation": ("dice", "segmentation.json", ("clean", "per_frame")),
    "detection": ("ap50", "detection.json", ("scores",)),
}
OWN = {"bundle_root", "seed", "ckpt_dir", "output_dir", "resume"}  # settings that a run has from the comparison
FILES = ("backbone_weights", "weights", "datalist")  # settings whose files' content the results depend on


def known_scores(bundle: str, settings: dict[str, Any]) -> list[str]:
    """Scores that a bundle may report, without a detector's of each class, as ``box_<class>_f1``."""
    if bundle == "segmentation":
        return [*FRAME_SCORES, "e_measure"]
    if bundle == "detection":
        return list(detection_report([])["scores"])
    answers = np.eye(len(as_class_names(settings.get("class_names", ["normal", "abnormal"]))), dtype=int)
    return list(classification_scores(answers, answers if settings.get("multi_label") else answers.argmax(1)))


@dataclass
class Run:
    """A training, and for a task the evaluation of what it gives, by a bundle's own configurations."""

    names: tuple[Any, ...]  # the last one is the seed
    folder: Path
    bundle: Path
    configs: Sequence[str]
    settings: dict[str, Any]
    training: Sequence[str] = ()  # further configurations of the training alone
    evaluation: dict[str, Any] = field(default_factory=dict)  # settings of the evaluation alone
    score: str | None = None  # what an evaluation is to give; None: there is none
    pretraining: "Run | None" = None  # that it starts from

    @property
    def title(self) -> str:
        """What is run, in words."""
        *names, seed = (
            f"{100 * name:g}% of the labels" if isinstance(name, float) else str(name) for name in self.names
        )
        return ", ".join([*names, f"seed {seed}"])

    @property
    def weights(self) -> Path:
        """What the training gives."""
        return self.folder / "models" / "model.pt"

    def result(self) -> dict[str, Any] | None:
        """What :meth:`execute` gave, if it came to its end and was of the same score."""
        path = self.folder / "result.json"
        found = read_json(path, dict) if path.is_file() else None
        return found if found is not None and found.get("score", self.score) == self.score else None

    def execute(self) -> dict[str, Any]:
        """Train, evaluate and measure; goes on where it was stopped, and never mixes two settings."""
        if self.pretraining is not None and self.pretraining.result() is None:
            raise RuntimeError(f"has no weights to start from: {self.pretraining.title}, failed")
        claim_settings(self.folder / "run.json", self.describe())
        if (result := self.result()) is not None:
            return result
        result = self._train()
        if self.score is not None:
            settings = {**self.evaluation, "weights": str(self.weights)}
            files = self._config_files("evaluate", [*self.configs, "evaluate"], settings)
            run_bundle(files, self.folder / "evaluation.log")
            _, name, keys = SCORES[self.bundle.name.rpartition("_")[2]]
            report = read_json(self.folder / "evaluate" / name, dict)
            scores = reduce(lambda part, key: part.get(key) or {}, keys, report)
            if self.score not in scores:
                known = ", ".join(scores) or "none"
                raise RuntimeError(f"{self.folder}: the evaluation gives no score `{self.score}`; there are {known}.")
            of_score = scores[self.score]
            if not isinstance(of_score, dict):  # a detector's, whose intervals stand apart
                of_score = {"value": of_score, "interval": report.get("intervals", {}).get(self.score)}
            result |= {"score": self.score, "value": of_score.get("value"), "interval": of_score.get("interval")}
        write_json(self.folder / "result.json", result)
        return result

    def _train(self) -> dict[str, Any]:
        """What there is to say of the training, which is not done twice if it is the evaluation that failed."""
        done = self.folder / "trained.json"
        if done.is_file():
            return read_json(done, dict)
        files = self._config_files("train", [*self.configs, *self.training], {})
        result = {"run": self.describe(), **count_parameters(files)}
        if self.score is None:
            result["tokens_per_clip"] = count_tokens(files)
        result["peak_memory_gib"] = run_bundle(files, self.folder / "training.log")
        result["seconds_per_step"] = seconds_per_step(self.folder / "train")
        result["weights_sha256"] = sha256([self.weights])
        write_json(done, result)
        (self.folder / "models" / "checkpoint.pt").unlink(missing_ok=True)  # three times the network, now of no use
        return result

    def check(self) -> None:
        """Refuse settings that its configurations do not have."""
        stages: list[tuple[Sequence[str], dict[str, Any]]] = [(self.training, {}), (["evaluate"], self.evaluation)]
        for last, more in stages if self.score is not None else stages[:1]:
            files = [str(self.bundle / "configs" / f"{name}.json") for name in (*self.configs, *last)]
            parser = ConfigParser(ConfigParser.load_config_files(files))
            for key, value in {**self.settings, **more}.items():
                merge_kv(parser, key, value)
            try:
                check_settings(parser, self.bundle / "configs")
            except ValueError as error:
                raise ValueError(f"{self.title}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """All that the result depends on, with the hashes of files."""
        of = {"": self.settings, "evaluation, ": self.evaluation}
        files = {f"{part}{key}": settings[key] for part, settings in of.items() for key in FILES if key in settings}
        return {
            "version": endofm_monai.__version__,
            "bundle": self.bundle.name,
            "configs": [*self.configs, *(f"{name} (training only)" for name in self.training)],
            "settings": self.settings,
            "evaluation": self.evaluation,
            "sha256": {key: sha256([path]) for key, path in files.items() if path is not None},
        }

    def _config_files(self, kind: str, configs: Sequence[str], more: dict[str, Any]) -> list[str]:
        folders = {"ckpt_dir": str(self.folder / "models"), "output_dir": str(self.folder / kind)}
        own = self.folder / f"{kind}.json"
        settings = {"bundle_root": str(self.bundle), **self.settings, **folders, **more, "resume": True}
        write_json(own, literal_texts(settings))
        return [*(str(self.bundle / "configs" / f"{name}.json") for name in configs), str(own)]


def run_bundle(files: Sequence[str], log: Path) -> float:
    """Run configurations in a process of their own; gives its peak in GiB, or NaN where the system does not tell."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", repr(list(files))]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        status, peak = Path(f"/proc/{process.pid}/status"), math.nan
        try:
            while process.poll() is None:  # what `wait4` tells is no less than the peak of this process
                if found := re.search(r"VmHWM:\s*(\d+)", status.read_text() if status.exists() else ""):
                    peak = int(found[1]) / 2**20
                time.sleep(0.2)
        except KeyboardInterrupt:
            process.terminate()  # at which a training keeps what it has done
            process.wait()
            raise
    if process.returncode == STOP_CODE:
        raise KeyboardInterrupt
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{log}: ended with {process.returncode}: {' '.join(last)}")
    return peak


def count_parameters(files: Sequence[str]) -> dict[str, int]:
    """Parameters of the network, and those of them that the optimizer changes."""
    parser = ConfigParser(ConfigParser.load_config_files(files))
    groups = parser.get_parsed_content("optimizer").param_groups
    trained = sum(weight.numel() for group in groups for weight in group["params"] if weight.requires_grad)
    weights = parser.get_parsed_content("model").parameters()
    return {"trained_parameters": trained, "parameters": sum(weight.numel() for weight in weights)}


def count_tokens(files: Sequence[str]) -> int:
    """Patch tokens of all views of a clip that a pre-training gives its networks, before any are dropped."""
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser["augment_on_device"] = False  # else the dataset gives clips, of which the training makes views
    dataset = parser.get_parsed_content("train::dataset")
    views = next(item["image"] for item in map(dataset.__getitem__, range(len(dataset))) if "broken" not in item)
    patch = parser.get_parsed_content("network_def").patch_size
    return sum(math.prod(view.shape[-3:]) for view in views) // patch**2


def seconds_per_step(folder: Path) -> float:
    """Median over the steps in a training's log; NaN of a single one."""
    # all of them: by default 10,000 are drawn, far from each other
    log = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    steps = {event.step: event.wall_time for event in log.Scalars("step/loss")}
    between = np.diff([moment for _, moment in sorted(steps.items())])
    return float(np.median(between)) if len(between) else math.nan
