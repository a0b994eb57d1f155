# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_clip import MemoryClip, noise

from endofm_monai.data import SupportSampler
from endofm_monai.inferers import DetectionPredictor, SelectDetections
from endofm_monai.networks.blocks import DetectionHead
from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.transforms import FitClip, NormalizeClip

FIT = FitClip((64, 96))


def normalize(clip: torch.Tensor) -> torch.Tensor:
    return NormalizeClip()(clip).double()


@pytest.fixture
def make(detector_network) -> Any:
    """A predictor with 4 supports of the 3 frames before and after."""

    def make_predictor(mode: str = "offline", seed: int = 0, **options: Any) -> DetectionPredictor:
        supports = SupportSampler(4, 3, mode, seed)
        return DetectionPredictor(detector_network, FIT, normalize, supports=supports, **options)

    return make_predictor


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_detections_are_those_of_the_network_on_key_frame_and_supports(make, detector_network, mode):
    predictor, video = make(mode), noise(12, 60, 100)
    found = [answer for _, answer in predictor(MemoryClip(video))]
    assert len(found) == 12
    assert len(found[5]["box"]) > 0
    for index, detections in enumerate(found):
        supports = predictor.supports.supports(index, 12)
        clip = normalize(FIT(video[:, [index, *supports]]))[None]
        with torch.no_grad():
            (expected,) = SelectDetections()(detector_network(clip))
        box = FIT.frame_map(60, 100).restore(expected["box"])
        box = torch.minimum(box.clamp(min=0), box.new_tensor([100, 60, 100, 60]))
        kept = ((box[:, 2:] - box[:, :2]) >= 1).all(dim=1)
        torch.testing.assert_close(detections["box"], box[kept], rtol=0, atol=1e-6)
        torch.testing.assert_close(detections["label_scores"], expected["label_scores"][kept], rtol=0, atol=1e-9)


def test_seed_chooses_the_supports(make):
    video = noise(8, 60, 100)
    sums = [sum(float(a["label_scores"].sum()) for _, a in make(seed=s)(MemoryClip(video))) for s in (0, 0, 1)]
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_each_frame_is_encoded_once(make, mode, monkeypatch):
    encoded = []
    encode = EndoFMDetector.encode
    monkeypatch.setattr(EndoFMDetector, "encode", lambda self, x: encoded.append(len(x)) or encode(self, x))
    assert len(list(make(mode)(MemoryClip(noise(20))))) == 20
    assert sum(encoded) == 20


@pytest.mark.parametrize(("num_supports", "together"), [(0, [1, 4, 4, 3]), (2, [1, 2, 2, 2, 2, 2, 1])])
def test_frames_are_refined_together_as_far_as_their_supports_allow(
    detector_network, monkeypatch, num_supports, together
):
    refined = []
    refine = DetectionHead.refine
    monkeypatch.setattr(DetectionHead, "refine", lambda self, x: refined.append(len(x[0].ltrb)) or refine(self, x))
    supports = SupportSampler(num_supports, window=3)
    predictor = DetectionPredictor(detector_network, FIT, normalize, supports=supports, block=4)
    assert len(predictor.push(noise(12))) + len(predictor.flush()) == 12
    assert refined == together


def test_offline_detections_come_after_the_window_and_the_rest_with_flush(make):
    predictor = make()
    assert [len(predictor.push(frame)) for frame in noise(12).split(1, dim=1)] == [0] * 3 + [1] * 9
    assert len(predictor.flush()) == 3
    assert predictor.flush() == []


def test_another_video_starts_anew_even_with_the_same_frames(make):
    predictor, runs = make("online"), []
    for _ in range(2):
        predictor.begin()
        runs.append([predictor.push(frame)[0][1] for frame in noise(6).split(1, dim=1)])
    for first, second in zip(*runs, strict=True):
        torch.testing.assert_close(first, second)


def test_an_image_supports_itself(make, detector_network):
    ((_, found),) = make()(MemoryClip(noise(1)))
    clip = normalize(FIT(noise(1)[:, [0, 0]]))[None]
    with torch.no_grad():
        (expected,) = SelectDetections()(detector_network(clip))
    torch.testing.assert_close(found["label_scores"][:3], expected["label_scores"][:3])


def test_uncertainty_is_how_near_the_least_certain_box_is_to_the_threshold(make):
    rows = (([0.95, 0.55], 0.5, 0.9), ([], 0.5, 0.0), ([1.0, 0.0], 0.5, 0.0), ([0.3], 0.5, 0.6), ([0.3], 0.3, 1.0))
    for scores, threshold, uncertainty in (*rows, ([0.65], 0.3, 0.5), ([1.0], 1.0, 1.0), ([0.0], 0.0, 1.0)):
        found = make(threshold=threshold).uncertainty({"label_scores": torch.tensor(scores)})
        assert found == pytest.approx(uncertainty, abs=1e-6)
