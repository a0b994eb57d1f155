# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from memory_clip import MemoryClip, noise
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, KeepLargestConnectedComponent
from torch import nn

from endofm_monai.inferers import MaskInferer, SegmentationPredictor
from endofm_monai.inferers.segmentation import mask_from_logits
from endofm_monai.transforms import NormalizeClip, ResizeClip

PREPARE = Compose([ResizeClip((16, 24)), NormalizeClip()])
AXES = ((), (-1,), (-2,), (-2, -1))


class Recorder(nn.Module):
    """A network of two classes that sees time and place, and notes the shapes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        torch.manual_seed(0)
        self.layer = nn.Conv3d(3, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append((len(x), x.shape[2]))
        return self.layer(x) + torch.linspace(-1, 1, x[0, 0].numel()).view(x.shape[2:])


def windows_by_monai(clip: torch.Tensor, network: nn.Module, window: int, stride: int) -> torch.Tensor:
    if clip.shape[1] <= window:
        return network(clip[None])[0]
    overlap = max(1 - (stride + 0.5) / window, 0.0)  # MONAI rounds the stride that this means down
    return sliding_window_inference(clip[None], (window, 16, 24), 1, network, (overlap, 0, 0), "constant")[0]


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 7, 8, 9, 16, 17, 30])
@pytest.mark.parametrize(("window", "stride", "batch"), [(8, 4, 1), (8, 4, 3), (6, 5, 2), (3, 1, 4)])
def test_a_frame_has_the_mean_of_its_windows(frames, window, stride, batch):
    network, clip = Recorder(), noise(frames)
    predictor = SegmentationPredictor(network, PREPARE, window, stride, batch, block=4)
    answers = [answer for _, answer in predictor(MemoryClip(clip))]
    seen = list(network.shapes)
    expected = windows_by_monai(PREPARE(clip), network, window, stride)
    torch.testing.assert_close(torch.stack([answer["logits"] for answer in answers], dim=1), expected)
    masks, probabilities = mask_from_logits(expected, clip.shape[-2:])
    torch.testing.assert_close(torch.stack([answer["probability"] for answer in answers], dim=1), probabilities)
    for number, answer in enumerate(answers):
        assert torch.equal(answer["mask"], (answer["probability"] > 0.5).to(torch.uint8))
        assert answer["mask"].shape == masks[:, number].shape == (1, 40, 60)
    assert sum(size for size, _ in seen) == 1 + max(0, -(-(frames - window) // stride))
    assert {length for _, length in seen} == {min(frames, window)}


@torch.no_grad()
def test_probabilities_are_the_mean_of_the_mirror_images():
    network, clip = Recorder(), noise(11)
    answers = [answer for _, answer in SegmentationPredictor(network, PREPARE, 4, 3, mirror=True)(MemoryClip(clip))]
    inputs = PREPARE(clip)
    images = [windows_by_monai(inputs.flip(axes), network, 4, 3).flip(axes).softmax(0) for axes in AXES]
    found = torch.stack([answer["logits"].softmax(0) for answer in answers], dim=1)
    torch.testing.assert_close(found, torch.stack(images).mean(0))


def test_a_certain_network_gives_finite_logits():
    class Certain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1e4 * torch.stack([x[:, 0], -x[:, 0]], dim=1)

    for _, answer in SegmentationPredictor(Certain(), PREPARE, mirror=True)(MemoryClip(noise(2))):
        assert answer["logits"].isfinite().all()


def test_online_a_window_ends_with_each_frame():
    network, clip = Recorder(), noise(6)
    predictor = SegmentationPredictor(network, PREPARE, 4, 2, window_batch_size=3, mode="online")
    answers = [answer for _, answer in predictor(MemoryClip(clip))]
    assert network.shapes == [(1, 1), (1, 2), (1, 3), (3, 4)]
    with torch.no_grad():
        expected = network(PREPARE(clip[:, 1:5])[None])[0, :, -1]
    torch.testing.assert_close(answers[4]["logits"], expected)


def test_post_processing_changes_the_mask_alone():
    network, keep = Recorder(), KeepLargestConnectedComponent()
    predictors = (SegmentationPredictor(network, PREPARE, postprocess=p) for p in (None, lambda mask: keep(1 - mask)))
    plain, processed = ([answer for _, answer in predictor(MemoryClip(noise(3)))] for predictor in predictors)
    for before, after in zip(plain, processed, strict=True):
        assert torch.equal(before["probability"], after["probability"])
        assert torch.equal(after["mask"], keep(1 - before["mask"]).as_tensor())
        assert type(after["mask"]) is torch.Tensor


def test_uncertainty_is_the_mean_entropy_of_the_pixels():
    predictor = SegmentationPredictor(Recorder(), PREPARE)
    half = torch.zeros(1, 2, 4)
    half[0, 0] = 0.5
    found = [predictor.uncertainty({"probability": p}) for p in (torch.zeros(1, 2, 4), half + 0.5 * (half == 0), half)]
    assert found == pytest.approx([0.0, 1.0, 0.5])


def test_frames_for_the_stock_app():
    network, clip = Recorder(), noise(1)
    predictor = SegmentationPredictor(network, PREPARE)
    ((_, answer),) = predictor(MemoryClip(clip))
    found = MaskInferer(predictor)(clip[None], network)
    assert torch.equal(found, answer["mask"].transpose(1, 2))


@pytest.mark.parametrize("stride", [0, 9])
def test_stride_must_leave_no_gap(stride):
    with pytest.raises(ValueError, match="`stride` must be from 1 to `window`=8"):
        SegmentationPredictor(Recorder(), PREPARE, 8, stride)


def test_masks_have_the_size_of_the_frames():
    logits = torch.zeros(2, 3, 8, 8)
    logits[1, :, 2:6, 2:6] = 4.0
    logits[0, :, :2] = 4.0
    logits -= 2.0 * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)  # background, where nothing else is said
    masks, probability = mask_from_logits(logits, (32, 48))
    assert masks.shape == probability.shape == (1, 3, 32, 48)
    assert masks.dtype == torch.uint8
    assert masks[0, :, 10:22, 14:34].all()
    assert masks[0, :, :6].sum() == masks[0, :, 28:].sum() == 0
    assert ((probability > 0.5) == masks.bool()).all()


def test_more_classes_are_foreground_together():
    logits = torch.tensor([1.0, 0.9, 0.9]).view(3, 1, 1, 1)
    assert mask_from_logits(logits, (1, 1))[0].item() == 1
