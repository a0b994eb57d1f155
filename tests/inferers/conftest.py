# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks.nets import EndoFMDetector


@pytest.fixture(scope="session")
def detector_network() -> EndoFMDetector:
    """A tiny detector with random weights that detects something in every frame.

    In float64, so that what is compared differs by nothing but an error: batches of another size round otherwise.
    """
    torch.manual_seed(0)
    made = EndoFMDetector.from_preset("tiny", num_classes=2, embed_dim=32, depth=2, num_heads=2)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    for layer in (made.head.classification.cls_logits, made.head.refined_class):
        torch.nn.init.zeros_(layer.bias)  # so that there are detections
    return made.eval().double()
