# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
import torch.nn.functional as F

from endofm_monai.networks.blocks import resample_spatial_encoding, resample_temporal_encoding


def test_time_takes_the_entries_of_nearest_interpolation():
    for size in (1, 3, 8, 14):
        table = torch.randn(1, size, 2)
        for frames in range(1, 70):
            expected = F.interpolate(table.transpose(1, 2), size=[frames], mode="nearest").transpose(1, 2)
            assert torch.equal(resample_temporal_encoding(table, frames), expected)


def test_space_takes_the_entries_of_nearest_interpolation_and_keeps_that_of_the_class_token():
    table = torch.randn(1, 1 + 14 * 10, 3)
    grid = table[:, 1:].transpose(1, 2).reshape(1, 3, 14, 10)
    for size in ((14, 10), (6, 8), (30, 40), (1, 7)):
        resampled = resample_spatial_encoding(table, (14, 10), size)
        assert torch.equal(resampled[:, 0], table[:, 0])
        expected = F.interpolate(grid, size=list(size), mode="nearest").flatten(2).transpose(1, 2)
        assert torch.equal(resampled[:, 1:], expected)
