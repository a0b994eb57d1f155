# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.networks import freeze_blocks
from endofm_monai.networks.blocks import split_predictions
from endofm_monai.networks.nets import EndoFMDetector

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def detector() -> EndoFMDetector:
    torch.manual_seed(0)
    network = EndoFMDetector.from_preset("tiny", num_classes=2, **SMALL)
    for parameter in network.parameters():
        if parameter.ndim > 1:  # what starts at zero would hide mistakes
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def clip(frames: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(2, 3, frames, height, width, generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_output_has_one_column_a_location(detector, frames):
    out = detector(clip(frames))
    assert out.shape == (2, 16, 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1)
    parts = split_predictions(out)
    assert parts.stride[0].unique(return_counts=True)[1].tolist() == [96, 24, 6, 2, 1]
    assert parts.location[0, [0, 1, 12, 96]].tolist() == [[4, 4], [12, 4], [4, 12], [8, 8]]
    torch.testing.assert_close(parts.first_box[..., :2], parts.location - parts.ltrb[..., :2])


@torch.no_grad()
def test_sides_may_be_odd_multiples_of_the_patch(detector):
    parts = split_predictions(detector(clip(2, height=80, width=112)))
    assert parts.stride[0].unique(return_counts=True)[1].tolist() == [10 * 14, 5 * 7, 2 * 3, 1 * 2, 1]
    assert parts.location[0, 10 * 14 + 5 * 7 - 1].tolist() == [104, 72]  # the coarser levels end before the border


@torch.no_grad()
def test_each_frame_as_key_is_the_same_as_clips_with_that_frame_first(detector):
    frames = clip(3)
    out = detector(frames, every_frame=True).unflatten(0, (2, 3))
    for key in range(3):
        order = [key, *(frame for frame in range(3) if frame != key)]
        torch.testing.assert_close(out[:, key], detector(frames[:, :, order]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_supports_count_and_their_order_does_not(detector):
    frames = clip(4)
    out = detector(frames)
    torch.testing.assert_close(detector(frames[:, :, [0, 3, 1, 2]]), out, rtol=1e-4, atol=1e-5)
    other = detector(frames[:, :, :3])
    torch.testing.assert_close(other[:, :10], out[:, :10], rtol=1e-4, atol=1e-5)  # the first stage sees the key alone
    assert (other[:, 10:] - out[:, 10:]).abs().max() > 1e-4


@torch.no_grad()
def test_joint_frames_meet_in_the_transformer(detector):
    frames = clip(3)
    alone = detector(frames)
    detector.frames = "joint"
    try:
        assert (detector(frames)[:, :10] - alone[:, :10]).abs().max() > 1e-3
        torch.testing.assert_close(detector(frames[:, :, :1])[:, :10], alone[:, :10], rtol=1e-4, atol=1e-5)
    finally:
        detector.frames = "per_frame"


def test_every_parameter_learns():
    network = EndoFMDetector.from_preset("tiny", **SMALL)
    network(clip(2)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_scripted_network_gives_the_same(detector):
    scripted = torch.jit.script(detector)
    torch.testing.assert_close(scripted(clip(3)), detector(clip(3)))
    torch.testing.assert_close(scripted(clip(2), True), detector(clip(2), True))


def test_frozen_blocks_and_what_is_before_them_do_not_learn():
    network = freeze_blocks(EndoFMDetector.from_preset("tiny", **SMALL), 1)
    network(clip(2)).square().mean().backward()
    learning = {name for name, parameter in network.backbone.named_parameters() if parameter.grad is not None}
    assert learning
    assert all(name.startswith(("blocks.1.", "norm.")) for name in learning)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`frozen_blocks` must be at most the backbone's depth"):
        freeze_blocks(EndoFMDetector.from_preset("tiny", **SMALL), 99)
    with pytest.raises(ValueError, match="`frames` must be"):
        EndoFMDetector.from_preset("tiny", frames="both", **SMALL)
    with pytest.raises(ValueError, match="`preset` must be one of"):
        EndoFMDetector.from_preset("huge")
    with pytest.raises(ValueError, match="multiples of 16"):
        EndoFMDetector.from_preset("tiny", **SMALL)(torch.zeros(1, 3, 1, 40, 64))
