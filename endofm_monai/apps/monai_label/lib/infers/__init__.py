# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from endofm_monai.apps.monai_label.lib.bundle import Bundle
from endofm_monai.apps.monai_label.lib.infers.classification import Classification
from endofm_monai.apps.monai_label.lib.infers.detection import Detection
from endofm_monai.apps.monai_label.lib.infers.segmentation import Segmentation
from endofm_monai.apps.monai_label.lib.infers.task import EndoInferTask

__all__ = ["Classification", "Detection", "EndoInferTask", "Segmentation", "infer_task"]


def infer_task(bundle: Bundle) -> EndoInferTask:
    """The infer task of a bundle."""
    kinds: dict[str, type[EndoInferTask]] = {
        "segmentation": Segmentation,
        "detection": Detection,
        "classification": Classification,
    }
    return kinds[bundle.task](bundle)
