# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list

from endofm_monai.apps.monai_label.lib.infers import requested_device
from endofm_monai.apps.monai_label.lib.labels import LabelError, join_frames_of_clips, labeled_frames
from endofm_monai.data.readers.paths import natural_key
from endofm_monai.inferers.bundle import Bundle
from endofm_monai.utils import atomic_path

__all__ = ["EndoTrainTask"]

WANTED = {"segmentation": "masks (PNG)", "detection": "notes with `detections`", "classification": "notes with `label`"}


class EndoTrainTask(TrainTask):
    """Trains a bundle by its ``train.json`` with the labels of the datastore that are tagged as final.

    The labels become a datalist, the best weights ``models/monai_label/model.pt`` in the bundle, which the infer task
    then prefers to those that came with it; to go back to them, remove that folder.

    Args:
        bundle: the bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.description)
        self.bundle = bundle
        self._stats: dict[str, Any] = {}

    def info(self) -> dict[str, Any]:
        """Describe the task to clients."""
        return {**super().info(), "version": self.bundle.version}

    def config(self) -> dict[str, Any]:
        """What a request may say, and the defaults."""
        return {
            "device": device_list(),
            "pretrained": True,  # begin with the weights in use
            "max_epochs": 50,
            "val_split": 0.2,  # share of the labels that choose the best epoch
            "num_workers": 0,  # processes that load data
        }

    def stats(self) -> dict[str, Any]:
        """Result of the last training in this process."""
        return self._stats

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train.

        Raises:
            HTTPException: when there are no labels, one does not fit its image, or the training cannot be set up or
                written; the weights in use stay as they are.
        """
        try:
            options = self._options(request)
            items = labeled_frames(self.bundle.task, datastore.datalist(), self.bundle.labels)
            if not items:
                others, none = len(datastore.datalist()), len(datastore.get_unlabeled_images())
                raise LabelError(
                    f"{self.bundle.name}: there is nothing to train with. It learns from {WANTED[self.bundle.task]}; "
                    f"{others} images have other labels, {none} have none."
                )
            self._stats = self._train(items, options)
        except Exception as error:
            cause = _known_cause(error)
            if cause is None:
                raise
            raise HTTPException(400, str(cause)) from error
        return self._stats

    def _options(self, request: dict[str, Any]) -> dict[str, Any]:
        """Of the request only numbers and a device: what else it says must not reach a configuration, which is code."""
        try:
            return {
                "device": f"$torch.device('{requested_device(request)}')",
                "epochs": int(request.get("max_epochs", 50)),
                "num_workers": int(request.get("num_workers", 0)),
                "val_split": float(request.get("val_split", 0.2)),
                "pretrained": bool(request.get("pretrained", True)),
            }
        except TypeError as error:
            raise ValueError(f"`max_epochs`, `num_workers` and `val_split` must be numbers: {error}") from error

    def _train(self, items: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
        training, validation = _split(items, options.pop("val_split"))
        folder = self.bundle.trained_weights.parent / "training"
        shutil.rmtree(folder, ignore_errors=True)
        root = os.path.commonpath([os.path.dirname(path) for item in items for path in _paths(item)])
        datalist = folder / "datalist.json"
        parts = {"training": training, "validation": validation or training}
        sections = {
            name: [_relative(clip, root) for clip in join_frames_of_clips(part)] for name, part in parts.items()
        }
        with atomic_path(datalist) as temporary:
            temporary.write_text(json.dumps(sections, indent=1), encoding="utf-8")
        weights = self.bundle.weights if options.pop("pretrained") else None
        if weights is not None:
            self.bundle.check_weights(weights)
        workflow = ConfigWorkflow(
            str(self.bundle.train_config),
            workflow_type="train",
            logging_file=False,
            bundle_root=str(self.bundle.path),
            dataset_dir=root,
            datalist=str(datalist),
            ckpt_dir=str(folder),
            output_dir=str(folder / "eval"),
            weights=None if weights is None else str(weights),
            val_interval=1,
            **options,
        )
        examples = training if self.bundle.task == "detection" else sections["training"]  # key frames, or clips
        workflow.parser["batch_size"] = min(workflow.parser["batch_size"], len(examples))
        with _own_sigterm():
            workflow.initialize()
            workflow.run()
        os.replace(folder / "model.pt", self.bundle.trained_weights)
        state = workflow.parser.get_parsed_content("validate::evaluator").state
        return {
            "labels": len(training),
            "validation_labels": len(validation),
            "epochs": options["epochs"],
            "best_epoch": state.best_metric_epoch,
            state.key_metric_name: round(float(state.best_metric), 4),
        }


def _split(items: Sequence[dict[str, Any]], share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Take the last frames for validation, of each class: neighbors look alike, so they stay together."""
    training, validation = [], []
    for label in dict.fromkeys(item.get("label") for item in items):
        alike = sorted(
            (item for item in items if item.get("label") == label), key=lambda item: natural_key(item["image"])
        )
        count = min(round(len(alike) * share), len(alike) - 1)
        training += alike[: len(alike) - count]
        validation += alike[len(alike) - count :]
    return training, validation


def _paths(item: dict[str, Any]) -> list[str]:
    return [path for key in ("image", "mask") for path in ensure_tuple(item.get(key, ()))]


def _relative(clip: dict[str, Any], root: str) -> dict[str, Any]:
    moved = dict(clip)
    for key in {"image", "mask"} & set(clip):
        paths = [Path(os.path.relpath(path, root)).as_posix() for path in ensure_tuple(clip[key])]
        moved[key] = paths if isinstance(clip[key], list) else paths[0]
    return moved


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the server's way to be stopped: a training that is run by it listens to the same signal."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _known_cause(error: BaseException | None) -> BaseException | None:
    """What somebody can put right: of a chain of errors, as the bundle's parser makes, the first that is no bug."""
    while error is not None and not isinstance(error, (ValueError, OSError)):
        error = error.__cause__
    return error
