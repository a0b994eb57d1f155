# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import threading
from itertools import islice
from typing import Any

import pytest
import torch
from memory_clip import MemoryClip, noise
from PIL import Image
from torch import nn

from endofm_monai.data import ClipReader, ClipReadError, SupportSampler, WindowPlan
from endofm_monai.inferers import ClassificationPredictor, DetectionPredictor, Predictor, SegmentationPredictor
from endofm_monai.inferers.predictor import finite
from endofm_monai.transforms import FitClip, NormalizeClip, ScaleCropClip

TASKS = ["segmentation", "detection", "classification"]
LENGTH = 13


class MeanColors(nn.Module):
    """Classifies clips of three frames by their colors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(10 * x.mean(dim=(3, 4)).flatten(1))


@pytest.fixture
def make(detector_network) -> Any:
    """A predictor of a task."""

    def make_predictor(task: str, **options: Any) -> Predictor:
        torch.manual_seed(0)
        if task == "segmentation":
            return SegmentationPredictor(nn.Conv3d(3, 2, 3, padding=1), NormalizeClip(), 4, 2, **options)
        if task == "classification":
            plan, crop = WindowPlan(3, 2), ScaleCropClip(16, 20)
            return ClassificationPredictor(
                MeanColors(), plan, crop, NormalizeClip(), overlap=0.5, num_crops=2, **options
            )
        supports = SupportSampler(3, 2, options.pop("mode", "offline"))
        return DetectionPredictor(detector_network, FitClip((32, 64)), normalize, supports=supports, **options)

    return make_predictor


def normalize(clip: torch.Tensor) -> torch.Tensor:
    return NormalizeClip()(clip).double()


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("task", TASKS)
def test_files_streams_and_single_frames_have_one_answer(make, task, mode):
    predictor, clip = make(task, mode=mode, block=4), noise(LENGTH)
    reader = MemoryClip(clip)
    frames, answers = zip(*predictor(reader), strict=True)
    assert torch.equal(torch.stack(frames, dim=1), clip)
    assert reader.decoded == list(range(LENGTH))
    for size in (1, 16):
        predictor.begin(reader.probe())
        found = [pair for part in clip.split(size, dim=1) for pair in predictor.push(part)] + predictor.flush()
        assert all(torch.equal(frame, clip[:, index]) for index, (frame, _) in enumerate(found))
        for (_, answer), expected in zip(found, answers, strict=True):
            same(answer, expected)
    for index in (0, 6, LENGTH - 1):
        same(predictor.at(reader, index), answers[index])
        assert 0 <= predictor.uncertainty(answers[index]) <= 1
    (_, alone), *_ = predictor(MemoryClip(clip[:, :1]))
    assert any(not torch.equal(alone[name], value) for name, value in answers[0].items()) == (mode == "offline")


@pytest.mark.parametrize("task", TASKS)
def test_two_videos_and_a_stream_may_be_gone_through_at_once(make, task):
    predictor, clip = make(task, block=4), noise(LENGTH)
    clips = [clip, clip.flip(1)]
    alone = [[answer for _, answer in predictor(MemoryClip(each))] for each in clips]
    predictor.begin(MemoryClip(clip).probe())
    streamed = predictor.push(clip[:, :6])
    both = zip(*(predictor(MemoryClip(each)) for each in clips), strict=True)  # in turn
    runs = [[answer for _, answer in run] for run in zip(*both, strict=True)]
    streamed += [*predictor.push(clip[:, 6:]), *predictor.flush()]
    for found, expected in zip([*runs, [answer for _, answer in streamed]], [*alone, alone[0]], strict=True):
        for answer, other in zip(found, expected, strict=True):
            same(answer, other)


@pytest.mark.parametrize("faster", [True, False])
def test_lower_precision_where_the_device_multiplies_faster_in_it(faster, make, monkeypatch):
    asked = []
    monkeypatch.setattr("endofm_monai.inferers.predictor.multiplies_faster", lambda *of: (asked.append(of), faster)[1])
    predictor = make("segmentation", amp=None)
    seen = []
    predictor.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    answers = [answer for _, answer in predictor(MemoryClip(noise(LENGTH)))]
    assert {*asked} == {(torch.bfloat16, "cpu")}
    assert {*seen} == {torch.bfloat16 if faster else torch.float32} == {predictor.precision}
    predictor.amp = False
    difference = max(
        float((answer["probability"] - exact["probability"]).abs().max())
        for answer, (_, exact) in zip(answers, predictor(MemoryClip(noise(LENGTH))), strict=True)
    )
    assert (0 < difference < 0.02) if faster else (difference == 0)


@pytest.mark.parametrize("task", TASKS)
def test_online_answers_come_at_once_and_look_at_nothing_later(make, task):
    predictor, clip = make(task, mode="online"), noise(LENGTH)
    answers = [predictor.push(frame) for frame in clip.split(1, dim=1)]
    assert [len(answer) for answer in answers] == [1] * LENGTH
    for length in (1, 5):
        *_, (_, last) = predictor(MemoryClip(clip[:, :length]))
        same(answers[length - 1][0][1], last)


@pytest.mark.parametrize("task", TASKS)
def test_one_frame_costs_no_more_than_what_it_is_seen_with(make, task, tmp_path):
    clip = noise(50)
    reader = MemoryClip(clip)
    predictor = make(task)
    answer = predictor.at(reader, 25)
    assert len(reader.decoded) <= 9
    assert all(abs(index - 25) <= 5 for index in reader.decoded)
    paths = [str(tmp_path / f"{index}.png") for index in range(50)]
    for path, frame in zip(paths, clip.permute(1, 2, 3, 0).numpy(), strict=True):
        Image.fromarray(frame).save(path)
    same(predictor.at(paths, 25), answer)
    with pytest.raises(ClipReadError, match="memory.mp4: has no frame 50; its 50 frames count from 0"):
        predictor.at(reader, 50)


@pytest.mark.parametrize("task", TASKS)
def test_a_broken_frame_is_an_error_after_the_answers_before_it(make, task):
    answers = make(task, mode="online", block=4)(MemoryClip(noise(LENGTH), broken=9))
    assert len(list(islice(answers, 8))) == 8
    with pytest.raises(ClipReadError, match="memory.mp4: frame 9 cannot be decoded"):
        next(answers)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_not_finite_is_no_answer(make, task, value):
    predictor, reader = make(task), MemoryClip(noise(LENGTH))
    network = predictor.network if task != "detection" else copy.deepcopy(predictor.network)
    predictor.network = network
    with torch.no_grad():
        list(network.parameters())[-1].fill_(value)
    for ask in (
        lambda: list(predictor(reader)),
        lambda: predictor.at(reader, 3),
        lambda: list(predictor.pieces(reader)),
    ):
        with pytest.raises(ClipReadError, match=r"memory\.mp4: the network's answer is not finite"):
            ask()


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_a_stream_goes_on_behind_a_frame_without_an_answer(make, task, monkeypatch):
    fails = iter([False, False, False, True])

    def fail_once(output: torch.Tensor) -> torch.Tensor:
        return finite(output * float("nan") if next(fails, False) else output)

    monkeypatch.setattr(f"endofm_monai.inferers.{task}.finite", fail_once)
    predictor, frames = make(task, mode="online"), noise(9).split(1, dim=1)
    for frame in frames[:3]:
        predictor.push(frame)
    with pytest.raises(ClipReadError, match="not finite"):
        predictor.push(frames[3])
    found = [predictor.push(frame)[0][1] for frame in frames[4:]]
    for answer, (_, expected) in zip(found, predictor(MemoryClip(torch.cat(frames[4:], dim=1))), strict=True):
        same(answer, expected)


def test_leaving_early_ends_the_reading(make):
    before = threading.active_count()
    frames = make("segmentation", block=2)(MemoryClip(noise(LENGTH)))
    next(frames)
    frames.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_no_frame_is_lost_where_the_size_changes(make, task):
    predictor, clip = make(task), noise(5)
    smaller = clip[..., :30, :50]
    found = [*predictor.push(clip), *predictor.push(smaller), *predictor.flush()]
    assert [frame.shape[-2:] for frame, _ in found] == [(40, 60)] * 5 + [(30, 50)] * 5
    for part, answers in ((clip, found[:5]), (smaller, found[5:])):
        for (_, answer), (_, expected) in zip(answers, predictor(MemoryClip(part)), strict=True):
            same(answer, expected)


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_what_comes_after_a_flush_is_another_video(make, task, mode):
    predictor, clip = make(task, mode=mode), noise(9)
    expected = [answer for _, answer in predictor(MemoryClip(clip))]
    for _ in range(2):
        found = [answer for part in clip.split(4, dim=1) for _, answer in predictor.push(part)]
        found += [answer for _, answer in predictor.flush()]
        for answer, other in zip(found, expected, strict=True):
            same(answer, other)


@pytest.mark.parametrize("task", TASKS)
def test_memory_does_not_grow_with_the_video(make, task):
    predictor = make(task)

    def kept() -> int:
        stores = [value for value in vars(predictor).values() if isinstance(value, dict)]
        return max(len(store) for store in stores)

    predictor.begin(MemoryClip(noise(60)).probe())
    sizes = []
    for part in noise(60).split(10, dim=1):
        predictor.push(part)
        sizes.append(kept())
    assert max(sizes) == max(sizes[:3]) <= 10


@pytest.mark.parametrize("task", TASKS)
def test_the_network_is_left_as_it_was(make, task):
    predictor = make(task)
    predictor.network.train()
    (_, answer), *_ = predictor(MemoryClip(noise(3)))
    assert predictor.network.training
    assert not any(value.requires_grad for value in answer.values())
    predictor.network.eval()


def test_a_wrong_mode_is_named(make):
    for task in TASKS:
        with pytest.raises(ValueError, match="`mode` must be"):
            make(task, mode="live")


def test_a_reader_stays_open(make):
    class Closing(MemoryClip):
        def close(self) -> None:
            raise AssertionError

    reader: ClipReader = Closing(noise(3))
    assert len(list(make("segmentation")(reader))) == 3


@pytest.mark.parametrize("task", TASKS)
def test_frames_of_a_stream_are_uint8_with_a_time_axis(make, task):
    predictor = make(task, mode="online")
    frames = noise(4, 20, 24)
    for wrong in (frames / 255, frames[:, 0], frames.transpose(0, 1)[:, :2]):
        with pytest.raises(ValueError, match=r"`frames` must be uint8 RGB \(3, T, H, W\), also a single one, but are"):
            predictor.push(wrong)
    assert predictor.push(frames[:, :0]) == []  # where a camera had none
    assert len(predictor.push(frames)) == 4
