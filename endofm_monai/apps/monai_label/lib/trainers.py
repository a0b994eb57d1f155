# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from monai.bundle import ConfigWorkflow
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list

from endofm_monai.apps.monai_label.lib.clips import join_frames_of_clips
from endofm_monai.apps.monai_label.lib.datastore import labeled_frames
from endofm_monai.apps.monai_label.lib.requests import AnyRequest, TrainRequest, parse
from endofm_monai.data import natural_key, read_mask
from endofm_monai.inferers import Bundle
from endofm_monai.utils import cause_of, hold_folder, literal_texts, write_json

WANTED = {"segmentation": "masks (PNG)", "detection": "notes with `detections`", "classification": "notes with `label`"}


class EndoTrainTask(TrainTask):
    """Trains a bundle by its ``train.json`` with the labels of the datastore that are tagged as final.

    The best weights become ``models/monai_label/model.pt`` in the bundle, which the infer task then prefers to those
    that came with it; to go back to them, remove that folder.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.description)
        self.bundle = bundle
        self._stats: dict[str, Any] = {}

    def info(self) -> dict[str, Any]:
        return {**super().info(), "version": self.bundle.version}

    def config(self) -> dict[str, Any]:
        return {"device": device_list(), **TrainRequest().model_dump(exclude={*AnyRequest.model_fields, "batch_size"})}

    def stats(self) -> dict[str, Any]:
        return self._stats

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train, or say by an ``HTTPException`` why that cannot be; the weights in use then stay as they are."""
        asked, datalist = parse(TrainRequest, request), datastore.datalist()
        try:
            items = labeled_frames(self.bundle.task, datalist, self.bundle.labels)
            if not items:
                raise ValueError(
                    f"{self.bundle.name}: there is nothing to train with. It learns from {WANTED[self.bundle.task]}; "
                    f"{len(datalist)} images have other labels, {len(datastore.get_unlabeled_images())} have none."
                )
            self._stats = self._train(items, asked)
        except Exception as error:
            cause = cause_of(error)
            if not isinstance(cause, (ValueError, OSError)):  # which somebody can put right
                raise
            raise HTTPException(400, str(cause)) from error
        return self._stats

    def _train(self, items: list[dict[str, Any]], asked: TrainRequest) -> dict[str, Any]:
        folders = [os.path.dirname(item[key]) for item in items for key in ("image", "mask") if key in item]
        training, validation = _split(items, asked.val_split)
        folder = self.bundle.trained_weights.parent / "training"
        if folder.is_dir():
            hold_folder(folder, "training")()  # not while another server trains there
        shutil.rmtree(folder, ignore_errors=True)
        parts = {"training": training, "validation": validation or training}
        sections = {name: join_frames_of_clips(part) for name, part in parts.items()}
        write_json(folder / "datalist.json", sections)
        weights = self.bundle.weights if asked.pretrained else None
        if weights:
            self.bundle.check_weights(weights)
        settings = {
            "bundle_root": str(self.bundle.path),
            "dataset_dir": os.path.commonpath(folders),
            "datalist": str(folder / "datalist.json"),
            "ckpt_dir": str(folder),
            "output_dir": str(folder / "eval"),
            "weights": weights and str(weights),
            "val_interval": 1,
            "epochs": asked.max_epochs,
            "num_workers": asked.num_workers,
            "device": f"$torch.device('{asked.device}')",
            **self.bundle.settings,
        }
        file = str(self.bundle.path / "configs" / "train.json")
        workflow = ConfigWorkflow(file, workflow_type="train", logging_file=False, **literal_texts(settings))
        examples = training if self.bundle.task == "detection" else sections["training"]  # key frames, or clips
        workflow.parser["batch_size"] = min(asked.batch_size or workflow.parser["batch_size"], len(examples))
        workflow.initialize()
        workflow.run()
        os.replace(folder / "model.pt", self.bundle.trained_weights)
        state = workflow.parser.get_parsed_content("validate::evaluator").state
        return {
            "labels": len(training),
            "validation_labels": len(validation),
            "epochs": asked.max_epochs,
            "best_epoch": state.best_metric_epoch,
            state.key_metric_name: round(float(state.best_metric), 4),
        }


def _split(items: Sequence[dict[str, Any]], share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Take the last frames of each class for validation: neighbors look alike, so they stay together.

    Frames that show a polyp and those that do not are two classes. Without the former, or without one of the bundle's
    classes, a validation could not be scored, so there is none, and all is for training.
    """
    groups = defaultdict(list)
    for item in items:
        groups[item.get("label"), _shows_something(item)].append(item)
    training, validation = list[dict[str, Any]](), list[dict[str, Any]]()
    for alike in groups.values():
        alike.sort(key=lambda item: natural_key(item["image"]))
        stop = len(alike) - min(round(len(alike) * share), len(alike) - 1)
        training += alike[:stop]
        validation += alike[stop:]
    held, known = ({item.get("label") for item in part if _shows_something(item)} for part in (validation, items))
    return (training, validation) if held == known else (training + validation, [])


def _shows_something(item: dict[str, Any]) -> bool:
    return bool(read_mask(item["mask"]).any()) if "mask" in item else bool(item.get("box", True))
