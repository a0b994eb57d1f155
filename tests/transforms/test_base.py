# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.bundle import ComponentLocator
from monai.data import MetaTensor
from monai.transforms import Compose

from endofm_monai import transforms
from endofm_monai.transforms.base import RandClipTransformd, to_float

NAMES = {
    "RandResizedCropClip": {"size": 12},
    "RandFlipClip": {},
    "RandColorJitterClip": {"hue": 0.2},
    "RandGrayscaleClip": {},
    "RandGaussianBlurClip": {"sigma": (0.5, 2.0)},
    "RandSolarizeClip": {},
}


def make(name, seed=0, suffix="", **options):
    return getattr(transforms, name + suffix)(**{**NAMES[name], **options}).set_random_state(seed=seed)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def clip():
    return torch.randint(0, 256, (3, 4, 20, 26), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_same_seed_same_result_other_seed_another_one(name, clip):
    results = [torch.stack([make(name, seed)(clip) for seed in seeds]) for seeds in (range(20), range(20))]
    assert torch.equal(*results)
    assert len(results[0].unique(dim=0)) > 1


def test_all_frames_are_treated_alike(name, clip):
    still = clip[:, :1].repeat(1, 4, 1, 1)
    for seed in range(10):
        result = make(name, seed)(still)
        assert (result == result[:, :1]).all()


def test_uint8_and_floating_point_give_the_same_in_range(name, clip):
    for seed in range(10):
        result = make(name, seed)(clip)
        assert result.dtype == torch.float32
        assert 0 <= result.min() <= result.max() <= 1
        torch.testing.assert_close(make(name, seed)(clip.float() / 255), result)
        double = make(name, seed)(clip.double() / 255)
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), result, atol=2e-5, rtol=0)


def test_the_input_stays(name, clip):
    floating = clip / 255
    before = floating.clone()
    for seed in range(10):
        make(name, seed)(floating)
        assert torch.equal(floating, before)


def test_draws_need_no_pixels(name):
    """Nothing is read back from the device: a clip without pixels goes through, to the same shape."""
    result = make(name)(torch.empty(3, 4, 20, 26, dtype=torch.uint8, device="meta"))
    assert result.shape == make(name)(torch.zeros(3, 4, 20, 26, dtype=torch.uint8)).shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_give_the_same(name, clip):
    for seed in range(10):
        torch.testing.assert_close(make(name, seed)(clip.cuda()).cpu(), make(name, seed)(clip), atol=1e-4, rtol=0)


def test_dictionary_version_gives_all_keys_the_same_draws(name, clip):
    transform = make(name, suffix="d", keys=["image", "again", "missing"], allow_missing_keys=True)
    for _ in range(5):
        result = transform({"image": clip, "again": clip, "other": clip})
        assert torch.equal(result["image"], result["again"])
        assert result["other"] is clip
    with pytest.raises(KeyError, match="missing"):
        make(name, suffix="d", keys="missing")({"image": clip})


def test_dictionary_version_is_seeded_by_compose(name, clip):
    def run(seed):
        compose = Compose([make(name, suffix="d", keys="image")]).set_random_state(seed=seed)
        return torch.stack([compose({"image": clip})["image"] for _ in range(10)])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_metadata_stay(name, clip):
    result = make(name)(MetaTensor(clip, meta={"fps": 25}))
    assert isinstance(result, MetaTensor)
    assert result.meta["fps"] == 25


def test_what_is_not_a_clip_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}.*\(C, T, H, W\).*found \(3, 4, 5\)"):
        make(name)(torch.zeros(3, 4, 5))
    with pytest.raises(TypeError, match="int32"):
        make(name, **({} if name == "RandResizedCropClip" else {"prob": 1}))(torch.zeros(3, 2, 4, 5, dtype=torch.int32))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gated", [name for name in NAMES if name != "RandResizedCropClip"])
def test_probability(gated, probability, clip):
    transform = make(gated, prob=probability)
    tiny = clip[..., :4, :4] / 255
    changed = np.mean([not torch.equal(transform(tiny), tiny) for _ in range(400)])
    assert changed == pytest.approx(probability, abs=0.08)


def test_flip_mirrors_left_and_right(clip):
    assert torch.equal(make("RandFlipClip", prob=1)(clip / 255), clip.flip(-1) / 255)


def test_solarization_inverts_the_bright_half():
    clip = torch.tensor([0.0, 0.2, 0.5, 0.75, 1.0]).expand(3, 1, 1, 5)
    expected = torch.tensor([0.0, 0.2, 0.5, 0.25, 0.0]).expand(3, 1, 1, 5)
    torch.testing.assert_close(make("RandSolarizeClip", prob=1)(clip), expected)


def test_blur_draws_its_sigma_evenly_from_the_range():
    dot = torch.zeros(3, 1, 41, 41)
    dot[..., 20, 20] = 1
    transform = make("RandGaussianBlurClip", sigma=(1.0, 3.0), prob=1)
    distance = torch.arange(41.0) - 20
    sigmas = [(transform(dot)[0, 0].sum(0) * distance**2).sum().sqrt().item() for _ in range(300)]
    assert min(sigmas) > 0.95
    assert max(sigmas) < 3.0
    assert np.mean(sigmas) == pytest.approx(2, abs=0.1)
    with pytest.raises(ValueError, match="`sigma`"):
        make("RandGaussianBlurClip", sigma=(0.0, 2.0))


def test_to_float():
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(to_float(levels), torch.arange(256) / 255, atol=0, rtol=0)
    double = torch.rand(3, dtype=torch.float64)
    assert to_float(double) is double
    with pytest.raises(TypeError, match=r"uint8.*found torch\.int64"):
        to_float(torch.arange(3))


def test_a_dictionary_version_is_found_by_its_name_and_travels_to_workers():
    assert ComponentLocator().get_component_module_name("RandFlipClipd") == "endofm_monai.transforms.geometry"
    assert isinstance(pickle.loads(pickle.dumps(make("RandFlipClip", suffix="d", keys="image"))), RandClipTransformd)
