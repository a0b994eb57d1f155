# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from endofm_monai.reference.transforms import ReferenceBGRClip
from endofm_monai.transforms import FitClip

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_detection.json").read_text())["data"]


def test_image_and_boxes_are_the_published_ones(arr):
    image = (arr("det/data_image", (288, 384, 3), 20, 120) + torch.tensor([20, 0, -20])).round().clamp(0, 255)
    clip = image.to(torch.uint8).permute(2, 0, 1).unsqueeze(1)
    fit = FitClip(640, reference_squeeze=True)
    tensor = ReferenceBGRClip()(fit(clip))[:, 0]
    probe = GOLDEN["image_probe"]
    assert list(tensor.shape) == probe["shape"]
    np.testing.assert_allclose(tensor.flatten()[probe["idx"]].numpy(), probe["val"], atol=1.5)
    np.testing.assert_allclose(tensor.mean((1, 2)).numpy(), GOLDEN["channel_means"], atol=0.05)
    boxes = fit.frame_map(288, 384).apply(torch.tensor(GOLDEN["boxes_in"]))
    torch.testing.assert_close(boxes, torch.tensor(GOLDEN["boxes_out"]))
