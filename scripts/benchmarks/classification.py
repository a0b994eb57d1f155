# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Polyp classification: how the sample data are learned, what a cache saves, and how much of inference is overhead."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

__all__ = ["Classification"]

BUNDLE = Path(__file__).parents[2] / "bundle" / "endofm_polyp_classification"


class Classification:
    """Each public method is a part that can be run alone.

    Args:
        data: folder of the sample data, see ``datasets/sample``.
    """

    def __init__(self, data: str = "datasets/sample/data") -> None:
        self.data = data

    def learning(self, seed: int = 0) -> dict[str, Any]:
        """Seconds that a probe of random weights takes to learn the sample data, and its scores on their test part."""
        with tempfile.TemporaryDirectory() as folder:
            folders = {"ckpt_dir": folder, "output_dir": folder}
            start = time.perf_counter()
            self._workflow("train", "linear_probe", "tiny", seed=seed, **folders).run()
            seconds = time.perf_counter() - start
            self._workflow("train", "tiny", "evaluate", weights=f"{folder}/model.pt", **folders).run()
            report = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
        return {"seconds": seconds, "test": {name: s["value"] for name, s in report["video"]["scores"].items()}}

    def epoch(self, preset: str = "small", frame_size: int = 112) -> dict[str, float]:
        """Median seconds of an epoch of full fine-tuning and of a linear probe on cached features, and their ratio."""
        settings = {"preset": preset, "frame_size": frame_size, "sampling_rate": 8}
        full = self._epoch_seconds("train", epochs=2, **settings)
        probe = self._epoch_seconds("train", "linear_probe", epochs=20, **settings)
        return {"full_seconds": full, "probe_seconds": probe, "times_cheaper": full / probe}

    def inference(self, preset: str = "base", frame_size: int = 224) -> dict[str, float]:
        """Inference over the test videos, from the first file to the last result, and its share outside the network."""
        with tempfile.TemporaryDirectory() as folder:
            workflow = self._workflow(
                "inference",
                kind="infer",
                datalist=f"{self.data}/datalist.json",
                preset=preset,
                frame_size=frame_size,
                sampling_rate=8,
                load_pretrain=False,
                output_dir=folder,
            )
            evaluator = workflow.parser.get_parsed_content("evaluator")
            start = time.perf_counter()
            evaluator.run()
            seconds = time.perf_counter() - start
            results = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder, "videos").rglob("*.json")]
        network = sum(result["network_seconds"] for result in results)
        return {"seconds": seconds, "network_seconds": network, "share_outside_network": 1 - network / seconds}

    def _epoch_seconds(self, *configs: str, **settings: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            workflow = self._workflow(*configs, ckpt_dir=folder, output_dir=folder, val_interval=1000, **settings)
            trainer: Engine = workflow.parser.get_parsed_content("train::trainer")
            seconds: list[float] = []
            trainer.add_event_handler(Events.EPOCH_STARTED, lambda: seconds.append(-time.perf_counter()))
            trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seconds.append(time.perf_counter()))
            trainer.run()
        epochs = [start + end for start, end in zip(seconds[::2], seconds[1::2], strict=True)]
        return median(epochs[1:])  # the first one warms up

    def _workflow(self, *configs: str, kind: str = "train", **settings: Any) -> ConfigWorkflow:
        files = [str(BUNDLE / "configs" / f"{name}.json") for name in configs]
        workflow = ConfigWorkflow(
            files, workflow_type=kind, bundle_root=str(BUNDLE), logging_file=False, dataset_dir=self.data, **settings
        )
        workflow.initialize()
        return workflow
