# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from monai.transforms import FillHoles, KeepLargestConnectedComponent, RemoveSmallObjects

from endofm_monai.transforms import MaskFromLogits, MaskFromLogitsd, PerFrame, PerFramed


def test_masks_have_the_size_of_the_frames():
    logits = torch.zeros(2, 3, 8, 8)
    logits[1, :, 2:6, 2:6] = 4.0
    logits[0, :, :2] = 4.0
    logits -= 2.0 * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)  # background, where nothing else is said
    masks, probability = MaskFromLogits()(logits, torch.zeros(3, 3, 32, 48))
    assert masks.shape == probability.shape == (1, 3, 32, 48)
    assert masks[0, :, 10:22, 14:34].all()
    assert masks[0, :, :6].sum() == masks[0, :, 28:].sum() == 0
    assert ((probability > 0.5) == masks.bool()).all()


def test_more_classes_are_foreground_together():
    logits = torch.tensor([1.0, 0.9, 0.9]).view(3, 1, 1, 1)
    assert MaskFromLogits()(logits, torch.zeros(1, 1))[0].item() == 1


def test_dictionary_version_keeps_logits_and_probability():
    item = MaskFromLogitsd("pred", "label")({"pred": torch.rand(2, 1, 4, 4), "label": torch.zeros(1, 1, 8, 8)})
    assert {key: tuple(value.shape) for key, value in item.items()} == {
        "pred": (1, 1, 8, 8),
        "label": (1, 1, 8, 8),
        "logits": (2, 1, 4, 4),
        "probability": (1, 1, 8, 8),
    }


def test_post_processing_looks_at_each_frame_alone():
    masks = torch.zeros(1, 2, 20, 20, dtype=torch.uint8)
    masks[0, 0, 2:10, 2:10] = 1
    masks[0, 0, 4:6, 4:6] = 0  # a hole
    masks[0, 0, 15:17, 15:17] = 1  # small, but larger than in the other frame
    masks[0, 1, 12:16, 2:6] = 1
    processed = masks
    for transform in (KeepLargestConnectedComponent(), FillHoles(), RemoveSmallObjects(min_size=10)):
        processed = PerFrame(transform)(processed)
    expected = torch.zeros_like(masks)
    expected[0, 0, 2:10, 2:10] = 1
    expected[0, 1, 12:16, 2:6] = 1
    assert processed.dtype == torch.uint8
    assert (processed == expected).all()
    assert (PerFramed("a", FillHoles())({"a": masks})["a"][0, 0, 2:10, 2:10] == 1).all()
