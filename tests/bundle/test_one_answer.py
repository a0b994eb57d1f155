# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import BundleUnderTest, write_noise
from monai.bundle import create_workflow
from trial import TRIAL_INFERENCE

from endofm_monai.data import VideoReader, open_clip
from endofm_monai.engines import VideoEvents
from endofm_monai.inferers import load_predictor

FRAMES = 11


@pytest.fixture(params=["segmentation", "detection", "classification"])
def bundle(request) -> BundleUnderTest:
    return BundleUnderTest(f"endofm_polyp_{request.param}")


@pytest.fixture
def video(tmp_path) -> Path:
    (tmp_path / "data").mkdir()
    write_noise(tmp_path / "data" / "clip.mp4", 60, FRAMES)
    return tmp_path / "data" / "clip.mp4"


@pytest.fixture
def decoded(monkeypatch) -> Counter[Any]:
    """Counts how often a video is opened, and each of its frames decoded."""
    counts: Counter[Any] = Counter()
    start, decode = VideoReader.__init__, VideoReader._decode

    def count_open(self: VideoReader, *args: Any, **kwargs: Any) -> None:
        counts["opened"] += 1
        start(self, *args, **kwargs)

    def count_frames(self: VideoReader, wanted: list[int]) -> Any:
        for index, frame in decode(self, wanted):
            counts[index] += 1
            yield index, frame

    monkeypatch.setattr(VideoReader, "__init__", count_open)
    monkeypatch.setattr(VideoReader, "_decode", count_frames)
    return counts


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_inference_gives_what_the_predictor_gives_and_opens_a_video_once(with_model, video, decoded, tmp_path):
    settings = TRIAL_INFERENCE[with_model.name]
    made = create_workflow(
        config_file=str(with_model / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(with_model),
        dataset_dir=str(video.parent),
        output_dir=str(tmp_path / "out"),
        device="cpu",
        **settings,
    )
    pieces: list[dict[str, torch.Tensor]] = []
    made.evaluator.add_event_handler(VideoEvents.PIECE_COMPLETED, lambda engine: pieces.append(engine.state.answer))
    made.run()
    assert (tmp_path / "out").exists()
    assert decoded.pop("opened") == 1
    assert set(decoded.values()) == {1}

    options = {key: value for key, value in settings.items() if not key.startswith("network_def")}
    options["network_def"] = made.parser.config["network_def"]
    predictor = load_predictor(with_model, **options)
    with open_clip(video) as reader:
        for (_, expected), found in zip(predictor.pieces(reader), pieces, strict=True):
            same(found, expected)
    for index, (_, answer) in enumerate(predictor(video)):
        if predictor.task != "classification":
            same(answer, pieces[index])
        same(predictor.at(video, index), answer)
