# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from endofm_monai.reference.transforms import RandReferenceInput, RandReferenceInputd

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_segmentation.json").read_text())["data"]


@pytest.fixture
def clip_and_masks(arr) -> tuple[torch.Tensor, torch.Tensor]:
    frames, masks = [], []
    for index in range(6):
        frame = arr(f"seg/data_image_{index}", (288, 384, 3), 20, 120 + 4 * index).numpy()
        frame = np.rint(frame + np.array([20, 0, -20], np.float32)).clip(0, 255).astype(np.uint8)
        frames.append(torch.from_numpy(frame).permute(2, 0, 1))
        mask = arr(f"seg/data_mask_{index}", (288, 384)) > 0.5
        mask[:20, :20] = False
        masks.append(mask.to(torch.uint8)[None])
    return torch.stack(frames, 1), torch.stack(masks, 1)


def test_gives_what_the_published_test_transform_gives(clip_and_masks):
    clip, masks = RandReferenceInput()(*clip_and_masks)
    assert clip[:, 0].mean((1, 2)).tolist() == pytest.approx(GOLDEN["channel_means_frame0"], abs=1e-4)
    for tensor, probe in ((clip.transpose(0, 1), GOLDEN["image_probe"]), (masks[0], GOLDEN["mask_probe"])):
        assert list(tensor.shape) == probe["shape"]
        flat = tensor.double().flatten()
        np.testing.assert_allclose(flat[probe["idx"]], probe["val"], atol=1e-4)
        assert float(flat.norm()) == pytest.approx(probe["l2"], rel=1e-5)
    assert masks.sum((0, 2, 3)).tolist() == GOLDEN["mask_sum_per_frame"]


def test_training_tears_the_clip_in_time_and_moves_masks_along():
    mask = torch.zeros(1, 4, 70, 70, dtype=torch.uint8)
    mask[..., 20:40, 10:30] = 1
    prepare = RandReferenceInputd("image", "label", size=56, augment=True).set_random_state(seed=0)
    item = prepare({"image": (mask * 200).repeat(3, 1, 1, 1), "label": mask})
    assert item["image"].shape == (3, 4, 56, 56)
    assert ((item["image"][:1] > 0) == (item["label"] > 0)).float().mean() > 0.97
    assert (item["label"][0, 0] != item["label"][0, 1]).any()


def test_constant_frames_stay_finite():
    clip, masks = RandReferenceInput(32)(torch.full((3, 2, 40, 40), 7, dtype=torch.uint8))
    assert masks is None
    assert (clip == -1).all()
