# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from monai.inferers import SimpleInferer

from endofm_monai.inferers import MirrorInferer, TemporalWindowInferer

CLIP = torch.randn(2, 2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
RAMP = torch.linspace(-1, 1, 24).view(4, 6)


def place_matters(x: torch.Tensor) -> torch.Tensor:
    """A network that sees more of the first class to the right and below."""
    return x + torch.stack([RAMP, -RAMP])[:, None]


def test_probabilities_are_the_mean_of_the_mirror_images() -> None:
    found = MirrorInferer(SimpleInferer())(CLIP, place_matters)
    ramps = [RAMP, RAMP.flip(0), RAMP.flip(1), RAMP.flip(0, 1)]
    expected = sum((CLIP + torch.stack([ramp, -ramp])[:, None]).softmax(1) for ramp in ramps) / 4
    torch.testing.assert_close(found.softmax(1), expected)


def test_what_mirror_images_agree_on_stays() -> None:
    found = MirrorInferer(TemporalWindowInferer(2, 1))(CLIP, lambda x: x)
    torch.testing.assert_close(found.softmax(1), CLIP.softmax(1))


def test_a_certain_network_gives_finite_logits() -> None:
    found = MirrorInferer(SimpleInferer())(CLIP, lambda x: 1e4 * x)
    assert found.isfinite().all()
    assert torch.equal(found.argmax(1), CLIP.argmax(1))


def test_without_mirror_it_is_the_other_inferer() -> None:
    inferer = MirrorInferer(SimpleInferer(), mirror=False)
    assert torch.equal(inferer(CLIP, place_matters), place_matters(CLIP))
