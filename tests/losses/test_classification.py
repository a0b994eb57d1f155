# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from endofm_monai.losses import ClassificationLoss


def test_classes_that_exclude_each_other():
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 0]), [1.0, 2.0, 0.5]
    expected = nn.CrossEntropyLoss(torch.tensor(weights), label_smoothing=0.1, reduction="none")(logits, labels)
    torch.testing.assert_close(ClassificationLoss(weights, 0.1)(logits, labels), expected.mean())


def test_a_class_weighs_the_same_in_batches_of_any_size():
    loss, logits, labels = ClassificationLoss([1.0, 3.0]), torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])
    singly = [loss(logits[i : i + 1], labels[i : i + 1]).item() for i in range(4)]
    assert singly == pytest.approx([math.log(2)] * 3 + [3 * math.log(2)])
    assert loss(logits, labels).item() == pytest.approx(sum(singly) / 4)


def test_several_labels():
    logits, labels = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    expected = (-torch.log(torch.tensor(0.5)) + torch.log1p(torch.exp(torch.tensor(2.0)))) / 2
    torch.testing.assert_close(ClassificationLoss()(logits, labels), expected)
    weighted = ClassificationLoss([3.0, 1.0])(logits, labels)
    torch.testing.assert_close(weighted - expected, -torch.log(torch.tensor(0.5)))
    smooth = ClassificationLoss(label_smoothing=0.2)
    confident = smooth(torch.tensor([[40.0]]), torch.tensor([[1.0]]))
    assert confident.item() == pytest.approx(0.1 * 40)


def test_low_precision_logits_give_a_float32_loss():
    loss = ClassificationLoss()(torch.randn(2, 2, dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert loss.dtype == torch.float32
