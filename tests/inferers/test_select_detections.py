# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from endofm_monai.inferers.detection import SelectDetections

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_detection.json").read_text())
NAMES = {"cls": (2, 2.5, -2.5), "ctr": (1, 1, 0), "ltrb": (4, 1.5, 2.5), "scls": (2, 1.5, -0.5), "sreg": (4, 0.3, 0)}


def published_outputs(arr, case) -> torch.Tensor:
    """The detector's output that the golden file's recipe makes."""
    levels = []
    for level, (height, width) in enumerate(case["level_sizes"]):
        stride = 8 * 2**level
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        parts = [torch.stack([x * stride + stride // 2, y * stride + stride // 2, torch.full_like(x, stride)])[None]]
        for name, (channels, std, mean) in NAMES.items():
            output = arr(f"det/{case['tag']}_{name}_l{level}", (1, channels, height, width), std, mean)
            parts.append(output.relu() * stride if name == "ltrb" else output)
        levels.append(torch.cat(parts, dim=1).flatten(2))
    return torch.cat(levels, dim=2)


@pytest.mark.parametrize("case", GOLDEN["postprocess"]["cases"], ids=lambda case: case["tag"])
def test_detections_are_the_published_ones(arr, case):
    (found,) = SelectDetections()(published_outputs(arr, case))
    height, width = case["image_hw"]
    box = found["box"].clamp(min=0)
    box = torch.minimum(box, torch.tensor([width - 1, height - 1, width - 1, height - 1]))
    assert len(box) == case["count"]
    assert [int((found["label"] == label).sum()) for label in (1, 2)] == case["count_per_label"]
    assert found["label_scores"].sum().item() == pytest.approx(case["scores_sum"], rel=1e-5)
    assert found["label_scores"].min().item() == pytest.approx(case["lowest_score"], rel=1e-5)
    assert box.abs().sum().item() == pytest.approx(case["boxes_abs_sum"], rel=1e-5)
    for rank, expected in enumerate(case["top40"]):
        torch.testing.assert_close(box[rank], torch.tensor(expected["box"]), atol=1e-3, rtol=0)
        assert found["label"][rank] == expected["label"]
        assert found["label_scores"][rank].item() == pytest.approx(expected["score"], rel=1e-5)


def test_no_candidate_gives_empty_tensors(arr):
    pred = published_outputs(arr, GOLDEN["postprocess"]["cases"][0])
    pred[:, 3:5] = -20
    (found,) = SelectDetections()(pred)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "box": (0, 4),
        "label": (0,),
        "label_scores": (0,),
    }
