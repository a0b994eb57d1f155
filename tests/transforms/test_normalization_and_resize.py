# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.transforms import CenterSpatialCrop
from torchvision.transforms.v2 import functional as TF

from endofm_monai.transforms import (
    REFERENCE_FINETUNING_MEAN,
    REFERENCE_FINETUNING_STD,
    NormalizeClip,
    NormalizeClipd,
    ResizeClip,
    ResizeClipd,
)


@pytest.fixture
def clip():
    return torch.randint(0, 256, (3, 2, 36, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_normalization_is_that_of_torchvision(clip):
    expected = TF.normalize(clip.transpose(0, 1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).transpose(0, 1)
    torch.testing.assert_close(NormalizeClip()(clip), expected)
    torch.testing.assert_close(NormalizeClip()(clip / 255), expected)
    torch.testing.assert_close(NormalizeClip()(torch.stack([clip, clip]))[1], expected)
    torch.testing.assert_close(NormalizeClipd("image")({"image": clip, "label": 1})["image"], expected)


def test_reference_finetuning_statistics(clip):
    normalize = NormalizeClip(REFERENCE_FINETUNING_MEAN, REFERENCE_FINETUNING_STD)
    torch.testing.assert_close(normalize(clip), (clip / 255 - 0.45) / 0.225)


@pytest.mark.parametrize(("height", "width", "expected"), [(36, 48, (18, 24)), (48, 36, (24, 18)), (9, 9, (18, 18))])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resize_keeps_the_ratio_and_the_type(height, width, expected, dtype):
    for shape in ((3, 2, height, width), (2, 3, 2, height, width)):
        resized = ResizeClip(18)(torch.full(shape, 7).to(dtype))
        assert resized.shape == (*shape[:-2], *expected)
        assert resized.dtype == dtype
        assert (resized == 7).all()


def test_resize_then_center_crop(clip):
    resized = ResizeClipd("image", 18)({"image": clip})["image"]
    assert torch.equal(resized[:, 1], TF.resize(clip[:, 1], [18], antialias=True))
    assert torch.equal(CenterSpatialCrop((-1, 18, 18))(resized), resized[..., 3:21])
