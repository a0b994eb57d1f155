# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from memory_clip import MemoryClip, noise
from PIL import Image

from endofm_monai.data import ClipInfo, RandomWindow
from endofm_monai.inferers import DetectionPredictor
from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.reference import transforms as reference
from endofm_monai.reference.transforms import RandReferenceInputd, ReferenceBGRClip, ReferenceFitClip, ReferenceInput
from endofm_monai.transforms import FitClip, LoadClipd, RandAugmentViews, RandColorJitterClip, ViewPlan
from endofm_monai.transforms.color import to_grayscale

TESTS = Path(__file__).parents[1]
COLOR = json.loads((TESTS / "data" / "golden_pretraining.json").read_text())["colour"]
BGR_LUMA = (0.114, 0.587, 0.299)


def info(frames: int, fps: float = 30) -> ClipInfo:
    return ClipInfo(frames, fps, 240, 320, frames / fps)


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [  # of the published code
        (300, 30, [0, 36, 72, 109, 145, 182, 218, 255]),
        (150, 30, [0, 36, 72, 109, 145, 149, 149, 149]),
        (100, 25, [0, 30, 60, 91, 99, 99, 99, 99]),
    ],
)
def test_published_frames_of_a_window(frames, fps, expected):
    video = info(frames, fps)
    assert reference.ReferenceWindowPlan()(video, {}, np.random.RandomState(0)).tolist() == expected
    drawn = reference.ReferenceRandomWindow()(video, {}, np.random.RandomState(0))
    assert (drawn - drawn[0]).tolist() == expected
    assert isinstance(reference.ReferenceRandomWindow(), RandomWindow)


def test_supports_beyond_an_end_are_its_frame():
    sampler = reference.ReferenceSupportSampler(10, 9)
    assert sampler.supports(0, 100)[:5] == [0] * 5
    assert sampler.supports(99, 100)[5:] == [99] * 5
    random = np.random.default_rng([0, 50])
    before, after = random.permutation(50 - np.arange(1, 10)), random.permutation(50 + np.arange(1, 10))
    assert sampler.supports(50, 100) == [*before[:5], *after[:5]]
    training = reference.ReferenceSupportSampler(2, 9)
    drawn = [training(info(30), {"frame_index": 3}, np.random.RandomState(seed)).tolist() for seed in range(300)]
    assert {key for key, _, _ in drawn} == {3}
    assert {before for _, before, _ in drawn} == {0, 1, 2}
    assert {after for _, _, after in drawn} == set(range(4, 13))
    first = [before for _, before, _ in drawn]
    assert first.count(0) / 300 == pytest.approx(7 / 9, abs=0.08)


def test_a_video_is_supported_beyond_its_ends(monkeypatch):
    chosen: dict[int, list[int]] = {}
    choose = reference.ReferenceSupportSampler.supports
    monkeypatch.setattr(
        reference.ReferenceSupportSampler,
        "supports",
        lambda self, index, frames: chosen.setdefault(index, choose(self, index, frames)),
    )
    network = EndoFMDetector.from_preset("tiny", embed_dim=32, depth=1, num_heads=2).eval()
    supports = reference.ReferenceSupportSampler(5, 3)
    answers = DetectionPredictor(network, FitClip(64), supports=supports)(MemoryClip(noise(12)))
    assert len(list(answers)) == 12
    assert chosen[0][:2] == [0, 0]
    assert chosen[11][2:] == [11, 11, 11]
    for index, frames in chosen.items():
        assert set(frames[:2]) <= {max(0, index - distance) for distance in (1, 2, 3)}
        assert set(frames[2:]) <= {min(11, index + distance) for distance in (1, 2, 3)}
        assert len(frames) == 5
        if 3 <= index <= 8:
            assert len(set(frames)) == 5
    with pytest.raises(ValueError, match="offline"):
        reference.ReferenceSupportSampler(mode="online")


def test_masks_take_any_value_but_255_for_background(tmp_path):
    Image.new("RGB", (12, 10)).save(tmp_path / "frame.png")
    Image.fromarray(np.array([[254, 255] * 6] * 10, np.uint8)).save(tmp_path / "mask.png")
    item = LoadClipd("image")({"image": tmp_path / "frame.png", "mask": tmp_path / "mask.png"})
    assert reference.ReferenceLoadMasksd("mask")(item)["label"][0, 0].tolist() == [[0, 1] * 6] * 10


@pytest.fixture
def golden_clip():
    generator = np.random.RandomState(zlib.crc32(b"img") & 0xFFFFFFFF)
    frames = (generator.standard_normal((2, 3, 4, 5)) * 0.2 + 0.5).astype(np.float32)  # (T, C, H, W)
    return torch.from_numpy(frames).transpose(0, 1)


def first_channel_of_first_frame(clip):
    return clip[0, 0].flatten().tolist()


def test_published_colors_and_resize(golden_clip):
    gray = to_grayscale(golden_clip, BGR_LUMA)
    assert first_channel_of_first_frame(gray) == pytest.approx(COLOR["grayscale_t0c0"], abs=1e-5)
    jitter = reference.ReferenceColorJitterClip()
    jitter.changes = [("contrast", COLOR["contrast_alpha"] - 1)]
    assert first_channel_of_first_frame(jitter.apply(golden_clip)) == pytest.approx(COLOR["contrast_t0c0"], abs=1e-5)
    resized = reference.resize_published(golden_clip, 6)
    assert first_channel_of_first_frame(resized) == pytest.approx(COLOR["resize_bicubic_t0c0_6x6"], abs=1e-5)


def test_published_resize_is_not_antialiased_and_keeps_the_overshoot():
    stripes = torch.zeros(3, 1, 64, 64)
    stripes[..., ::4] = 1
    assert (reference.resize_published(stripes, 8) - 0.25).abs().max() > 0.2
    edge = torch.zeros(3, 1, 8, 8)
    edge[..., 4:] = 1
    overshoot = reference.resize_published(edge, 32)
    assert overshoot.min() < -0.01
    assert overshoot.max() > 1.01


def test_jitter_neither_clips_nor_weighs_as_rgb():
    clip = torch.rand(3, 2, 8, 9, generator=torch.Generator().manual_seed(0))
    ours = RandColorJitterClip(0, 0, 1.0, prob=1).set_random_state(seed=3)
    published = reference.ReferenceColorJitterClip(0, 0, 1.0, prob=1).set_random_state(seed=3)
    result = published(clip)
    ((_, change),) = published.changes
    gray = (0.114 * clip[0] + 0.587 * clip[1] + 0.299 * clip[2]).expand_as(clip)
    torch.testing.assert_close(result, clip * (1 + change) - gray * change)
    assert not torch.allclose(ours(clip), result.clamp(0, 1), atol=1e-3)
    bright = reference.ReferenceColorJitterClip(1.0, 0, 0, prob=1).set_random_state(seed=1)
    assert max(bright(clip).max() for _ in range(10)) > 1.2


def test_grayscale_weights():
    primaries = torch.eye(3).view(3, 1, 1, 3)  # a red, a green and a blue pixel
    gray = reference.ReferenceGrayscaleClip(prob=1)(primaries)
    torch.testing.assert_close(gray, torch.tensor(BGR_LUMA).expand(3, 1, 1, 3))


@pytest.mark.parametrize(
    ("frame_size", "scale", "published_share"),
    [
        ((256, 256), (0.4, 1.0), 0.21),
        ((256, 320), (0.4, 1.0), 0.32),
        ((256, 341), (0.4, 1.0), 0.39),
        ((256, 456), (0.4, 1.0), 0.68),
        ((256, 320), (0.05, 0.4), 0.0),
    ],
)
def test_boxes_are_cut_as_often_as_the_published_ones(frame_size, scale, published_share):
    class Recorder(np.random.RandomState):
        """Keeps the area and the log-ratio of the last try, which is the one that counts."""

        def uniform(self, low, high):
            self.drawn = [*getattr(self, "drawn", [])[-1:], super().uniform(low, high)]
            return self.drawn[-1]

    crop = reference.ReferenceResizedCropClip(8, scale)
    crop.R = Recorder(0)
    frames, cut = torch.empty(3, 1, *frame_size, device="meta"), 0
    for _ in range(2000):
        crop.randomize(frames)
        share, log_ratio = crop.R.drawn
        area = share * frame_size[0] * frame_size[1]
        wanted = round(np.sqrt(area / np.exp(log_ratio))), round(np.sqrt(area * np.exp(log_ratio)))
        cut += crop.box[2:] not in (wanted, (256, 341))  # the latter is the central box, when none of the ten fits
    assert cut / 2000 == pytest.approx(published_share, abs=0.03)


@pytest.mark.parametrize("frame_size", [(1, 1), (2, 3), (1, 50)])
def test_tiny_frames_give_a_box(frame_size):
    crop = reference.ReferenceResizedCropClip(8, (0.05, 0.4))
    for seed in range(50):
        crop.set_random_state(seed).randomize(torch.empty(3, 1, *frame_size))
        top, left, height, width = crop.box
        assert 0 < height <= frame_size[0] - top
        assert 0 < width <= frame_size[1] - left


def test_views_have_published_crops_and_are_neither_blurred_nor_solarized():
    plan = ViewPlan((1,) * 3, (1,), 16, 16, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    noise = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    augment = reference.ReferenceAugmentViews(
        plan,
        flip_prob=0.0,
        jitter_prob=0.0,
        gray_prob=0.0,
        global_blur_prob=[1.0],
        local_blur_prob=1.0,
        global_solarize_prob=[1.0],
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    assert all(torch.allclose(view, noise, atol=1e-5) for view in augment(noise.expand(-1, 4, -1, -1)))
    for views, is_published in ((RandAugmentViews, False), (reference.ReferenceAugmentViews, True)):
        crop = views(ViewPlan((1,), ())).set_random_state(seed=0).transforms[0][0]
        ratios = []
        for _ in range(300):
            crop.randomize(torch.empty(3, 1, 30, 40))
            ratios.append(crop.box[3] / crop.box[2])
        assert (not 0.7 < min(ratios) < max(ratios) < 1.45) == is_published


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (64, 64)])
def test_square_is_the_first_one_of_the_published_validation(height, width):
    clip = torch.randint(0, 256, (3, 2, height, width), dtype=torch.uint8)
    size = (32, width * 32 // height) if height <= width else (height * 32 // width, 32)
    expected = F.interpolate(clip / 255, size, mode="bilinear", align_corners=False)[..., :32, :32]
    torch.testing.assert_close(reference.ReferenceScaleCropClip(32, 40)(clip), expected)
    torch.testing.assert_close(
        reference.ReferenceScaleCropClipd("a", size=32, short_side=40)({"a": clip})["a"], expected
    )


def test_random_square_never_takes_the_last_offset():
    crop = reference.ReferenceRandScaleCropClip(32, (40, 40)).set_random_state(seed=0)
    clip = torch.arange(40.0).expand(3, 1, 40, 40) / 40
    assert {round(float(crop(clip)[0, 0, 0, 0]) * 40) for _ in range(200)} == set(range(8))


def test_frames_are_squeezed():
    fit = reference.ReferenceFitClip(64)
    torch.testing.assert_close(fit(torch.ones(3, 1, 30, 90)), torch.ones(3, 1, 64, 64))
    box = fit.frame_map(30, 90).apply(torch.tensor([[9.0, 3.0, 45.0, 15.0]]))
    torch.testing.assert_close(box, torch.tensor([[6.4, 6.4, 32.0, 32.0]]))


def test_flip_is_one_pixel_off():
    transform = reference.ReferenceRandFitClip((50, 100), zoom=(1, 1), flip_prob=1, vertical_flip_prob=0)
    transform(torch.zeros(3, 1, 50, 100))
    box = torch.tensor([[10.0, 5.0, 30.0, 25.0]])
    torch.testing.assert_close(transform.frame_map.apply(box), torch.tensor([[69.0, 5.0, 89.0, 25.0]]))
    torch.testing.assert_close(transform.frame_map.restore(transform.frame_map.apply(box)), box)


DETECTION = json.loads((Path(__file__).parents[1] / "data" / "golden_detection.json").read_text())["data"]


def test_image_and_boxes_are_the_published_ones(arr):
    image = (arr("det/data_image", (288, 384, 3), 20, 120) + torch.tensor([20, 0, -20])).round().clamp(0, 255)
    clip = image.to(torch.uint8).permute(2, 0, 1).unsqueeze(1)
    fit = ReferenceFitClip(640)
    tensor = ReferenceBGRClip()(fit(clip))[:, 0]
    probe = DETECTION["image_probe"]
    assert list(tensor.shape) == probe["shape"]
    np.testing.assert_allclose(tensor.flatten()[probe["idx"]].numpy(), probe["val"], atol=1.5)
    np.testing.assert_allclose(tensor.mean((1, 2)).numpy(), DETECTION["channel_means"], atol=0.05)
    boxes = fit.frame_map(288, 384).apply(torch.tensor(DETECTION["boxes_in"]))
    torch.testing.assert_close(boxes, torch.tensor(DETECTION["boxes_out"]))


SEGMENTATION = json.loads((Path(__file__).parents[1] / "data" / "golden_segmentation.json").read_text())["data"]


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
    frames, masks = clip_and_masks
    clip = ReferenceInput()(frames)
    item = RandReferenceInputd("image", "label", augment=False)({"image": frames, "label": masks})
    assert torch.equal(item["image"], clip)
    masks = item["label"]
    assert clip[:, 0].mean((1, 2)).tolist() == pytest.approx(SEGMENTATION["channel_means_frame0"], abs=1e-4)
    for tensor, probe in ((clip.transpose(0, 1), SEGMENTATION["image_probe"]), (masks[0], SEGMENTATION["mask_probe"])):
        assert list(tensor.shape) == probe["shape"]
        flat = tensor.double().flatten()
        np.testing.assert_allclose(flat[probe["idx"]], probe["val"], atol=1e-4)
        assert float(flat.norm()) == pytest.approx(probe["l2"], rel=1e-5)
    assert masks.sum((0, 2, 3)).tolist() == SEGMENTATION["mask_sum_per_frame"]


def test_training_tears_the_clip_in_time_and_moves_masks_along():
    mask = torch.zeros(1, 4, 70, 70, dtype=torch.uint8)
    mask[..., 20:40, 10:30] = 1
    prepare = RandReferenceInputd("image", "label", size=56).set_random_state(seed=0)
    item = prepare({"image": (mask * 200).repeat(3, 1, 1, 1), "label": mask})
    assert item["image"].shape == (3, 4, 56, 56)
    assert ((item["image"][:1] > 0) == (item["label"] > 0)).float().mean() > 0.97
    assert (item["label"][0, 0] != item["label"][0, 1]).any()


def test_constant_frames_stay_finite():
    clip = ReferenceInput(32)(torch.full((3, 2, 40, 40), 7, dtype=torch.uint8))
    assert (clip == -1).all()
