# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from endofm_monai.networks.blocks.detection_head import deformable_convolution


@pytest.mark.parametrize(("height", "width"), [(6, 9), (1, 1)])
def test_deformable_convolution_has_the_values_and_gradients_of_torchvision(height, width):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 8, height, width), (2, 4 * 18, height, width), (5, 8, 3, 3)]
    results = []
    for function in (deformable_convolution, lambda *args: deform_conv2d(*args, padding=1)):
        generator.manual_seed(0)
        tensors = [3 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        tensors = [tensor.requires_grad_() for tensor in tensors]
        output = function(*tensors)
        output.square().sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
