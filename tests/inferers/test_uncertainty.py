# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.inferers.uncertainty import class_entropy, mask_entropy, score_margin


def test_entropy_of_classes():
    found = class_entropy(torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0, 0], [0.5, 0.5, 0]]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.63093]), rtol=1e-4, atol=1e-6)


def test_entropy_of_independent_classes():
    found = class_entropy(torch.tensor([[0.5, 1.0], [0.0, 1.0], [0.25, 0.25]]), multi_label=True)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0, 0.81128]), rtol=1e-4, atol=1e-6)


def test_entropy_of_masks():
    probability = torch.zeros(3, 1, 2, 4)
    probability[1] = 0.5
    probability[2, 0, 0] = 0.5
    torch.testing.assert_close(mask_entropy(probability), torch.tensor([0.0, 1.0, 0.5]))


def test_margin_of_the_least_certain_box():
    scores = [torch.tensor([0.95, 0.55]), torch.tensor([]), torch.tensor([1.0, 0.0]), torch.tensor([0.3])]
    torch.testing.assert_close(score_margin(scores), torch.tensor([0.9, 0.0, 0.0, 0.6]))
    assert float(score_margin([torch.tensor([0.3])], threshold=0.3)) == 1
    assert float(score_margin([torch.tensor([0.65])], threshold=0.3)) == pytest.approx(0.5)
