# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.inferers.detection import SelectDetections
from tests.losses.test_detection import GOLDEN, prediction, published_outputs


@pytest.mark.parametrize("case", GOLDEN["postprocess"]["cases"], ids=lambda case: case["tag"])
def test_detections_are_the_published_ones(arr, case):
    (found,) = SelectDetections()(prediction(published_outputs(arr, case)).detach())
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
    pred = prediction(published_outputs(arr, GOLDEN["postprocess"]["cases"][0])).detach()
    pred[:, 3:5] = -20
    (found,) = SelectDetections()(pred)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "box": (0, 4),
        "label": (0,),
        "label_scores": (0,),
    }
