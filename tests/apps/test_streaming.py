# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy

import pytest
import torch

from endofm_monai.inferers.detection import ClipDetector, SelectDetections, StreamingDetector
from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.transforms import FitClip, NormalizeClip


def normalize(clip: torch.Tensor) -> torch.Tensor:
    """In float64, so that what is compared differs by nothing but an error: batches of another size round otherwise."""
    return NormalizeClip()(clip).double()


SETTINGS = {"fit": FitClip((64, 96)), "normalize": normalize, "num_supports": 4, "window": 3}


@pytest.fixture(scope="module")
def network(detector_network) -> EndoFMDetector:
    return copy.deepcopy(detector_network).double()


@pytest.fixture
def video() -> torch.Tensor:
    return torch.randint(0, 256, (3, 12, 60, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def same(one, other) -> None:
    assert [index for index, _ in one] == [index for index, _ in other]
    for (_, first), (_, second) in zip(one, other, strict=True):
        for key in first:
            torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_detections_are_those_of_the_network_on_key_frame_and_supports(network, video, mode):
    detector = StreamingDetector(network, mode=mode, **SETTINGS)
    chosen = {}
    choose = detector.supports
    detector.supports = lambda index: chosen.setdefault(index, choose(index))
    found = list(detector.detect(video.split(1, dim=1)))
    assert [index for index, _ in found] == list(range(12))
    assert len(found[5][1]["box"]) > 0
    fit, select = SETTINGS["fit"], SelectDetections()
    for index, detections in found:
        supports = chosen[index]
        assert len(set(supports)) == len(supports)
        assert all(0 < abs(support - index) <= 3 for support in supports)
        if mode == "online":
            assert all(support < index for support in supports)
            assert len(supports) == min(index, 3)
        else:
            assert len(supports) == min(4, 3 + min(index, 11 - index))
        clip = normalize(fit(video[:, [index, *(supports or [index])]]))[None]
        with torch.no_grad():
            (expected,) = select(network(clip))
        box = fit.frame_map(60, 100).restore(expected["box"])
        box = torch.minimum(box.clamp(min=0), box.new_tensor([100, 60, 100, 60]))
        kept = ((box[:, 2:] - box[:, :2]) >= 1).all(dim=1)
        torch.testing.assert_close(detections["box"], box[kept], rtol=0, atol=1e-6)
        torch.testing.assert_close(detections["label_scores"], expected["label_scores"][kept], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_size_of_the_blocks_makes_no_difference(network, video, mode):
    by_one = list(StreamingDetector(network, mode=mode, **SETTINGS).detect(video.split(1, dim=1)))
    same(by_one, list(StreamingDetector(network, mode=mode, **SETTINGS).detect(video.split(5, dim=1))))


def test_seed_chooses_the_supports(network, video):
    found = [list(StreamingDetector(network, seed=s, **SETTINGS).detect([video])) for s in (0, 0, 1)]
    same(found[0], found[1])
    scores = [torch.cat([detections["label_scores"] for _, detections in run]).sum() for run in found]
    assert scores[0] != scores[2]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_each_frame_is_encoded_once_in_bounded_memory(network, video, mode, monkeypatch):
    encoded = []
    encode = EndoFMDetector.encode
    monkeypatch.setattr(EndoFMDetector, "encode", lambda self, x: encoded.append(len(x)) or encode(self, x))
    detector = StreamingDetector(network, mode=mode, **SETTINGS)
    sizes = []
    for frame in video.repeat(1, 3, 1, 1).split(1, dim=1):
        detector.push(frame)
        sizes.append(detector.memory_bytes)
    detector.flush()
    assert sum(encoded) == 36
    frames = 2 * 3 if mode == "offline" else 3
    assert max(sizes) == sizes[-1] == frames * sizes[0]


def test_offline_detections_come_after_the_window_and_the_rest_with_flush(network, video):
    detector = StreamingDetector(network, **SETTINGS)
    counts = [len(detector.push(frame)) for frame in video.split(1, dim=1)]
    assert counts == [0] * 3 + [1] * 9
    assert [index for index, _ in detector.flush()] == [9, 10, 11]
    assert detector.flush() == []


def test_another_video_starts_anew_even_with_the_same_frames(network, video):
    detector = StreamingDetector(network, mode="online", **SETTINGS)
    first = [detector.push(frame, video="a")[0] for frame in video.split(1, dim=1)]
    second = [detector.push(frame, video="b")[0] for frame in video.split(1, dim=1)]
    same(first, second)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_no_frame_is_lost_where_the_size_changes(network, video, mode):
    detector = StreamingDetector(network, mode=mode, **SETTINGS)
    smaller = video[:, :5, :40, :50]
    found = list(detector.detect([video[:, :5], smaller, video[:, 5:]]))
    assert [index for index, _ in found] == list(range(17))
    assert max(float(detections["box"].max()) for _, detections in found[5:10]) <= 50
    assert max(float(detections["box"].max()) for _, detections in found[:5]) > 50
    alone = list(StreamingDetector(network, mode=mode, **SETTINGS).detect([video[:, :5]]))
    same(found[:5], alone)


def test_one_image_supports_itself(network, video):
    ((index, detections),) = StreamingDetector(network, **SETTINGS).detect([video[:, :1]])
    assert index == 0
    (found,) = ClipDetector(network, SETTINGS["fit"], normalize)(video[None, :, 0])
    torch.testing.assert_close(found["box"], detections["box"])
    (twice,) = ClipDetector(network, SETTINGS["fit"], normalize)(video[None, :, [0, 0]])
    torch.testing.assert_close(found["label_scores"], twice["label_scores"])
    with_supports = ClipDetector(network, SETTINGS["fit"], normalize)(video[None, :, :4], use_inferer=True)[0]
    assert with_supports["label_scores"].sum() != found["label_scores"].sum()


def test_published_rule_clamps_places_beyond_the_ends(network, video):
    settings = {**SETTINGS, "num_supports": 5, "reference_clamped_supports": True}
    detector = StreamingDetector(network, **settings)
    chosen: dict[int, list[int]] = {}
    choose = detector.supports
    detector.supports = lambda index: chosen.setdefault(index, choose(index))
    assert len(list(detector.detect(video.split(5, dim=1)))) == 12
    assert chosen[0][:2] == [0, 0]
    assert chosen[11][2:] == [11, 11, 11]
    for index, supports in chosen.items():
        left, right = supports[:2], supports[2:]
        assert set(left) <= {max(0, index - distance) for distance in (1, 2, 3)}
        assert set(right) <= {min(11, index + distance) for distance in (1, 2, 3)}
        assert len(supports) == 5
        if 3 <= index <= 8:
            assert len(set(supports)) == 5
    with pytest.raises(ValueError, match="reference_clamped_supports"):
        StreamingDetector(network, mode="online", **settings)


def test_wrong_mode_is_named(network):
    with pytest.raises(ValueError, match="`mode` must be"):
        StreamingDetector(network, mode="live", **SETTINGS)
