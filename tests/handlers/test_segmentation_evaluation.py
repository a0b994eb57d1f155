# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from processes import run_two_processes

from endofm_monai.handlers import MaskPictureHandler, MeanFrameDice, SegmentationEvaluation

DATA = [{"image": [f"/data/{clip}/{frame}.png" for frame in range(3)]} for clip in ("a", "b", "c")]


def square(top: int) -> torch.Tensor:
    masks = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    masks[..., top : top + 8, 4:12] = 1
    return masks


def run(
    handler: object, tops: list[int], processed: bool = False, clips: list[int] | None = None, data: list[dict] = DATA
) -> Engine:
    """An evaluator after its run over clips with a true square at 4 and predicted ones at ``tops``."""

    def step(engine: Engine, index: int) -> list[dict]:
        prediction = square(tops[index])
        engine.state.batch = [{"index": index, "image": torch.rand(3, 3, 8, 8)}]
        output = {
            "image": engine.state.batch[0]["image"],
            "pred": prediction,
            "label": square(4),
            "probability": prediction.float(),
            "logits": torch.cat([1 - prediction, prediction]).float()[..., ::2, ::2],
        }
        return [{**output, **({"processed": square(4)} if processed else {})}]

    engine = Engine(step)
    engine.data_loader = SimpleNamespace(dataset=SimpleNamespace(data=data))
    handler.attach(engine)
    MeanFrameDice().attach(engine, "dice")
    engine.run(range(len(tops)) if clips is None else clips)
    return engine


def test_both_protocols_stand_side_by_side_and_shared_clips_are_flagged(tmp_path):
    training = [{"image": ["/data/b/1.png"]}, {"image": "/data/video.mp4"}]
    run(SegmentationEvaluation(tmp_path, training, "/data"), [8, 4])
    report = json.loads((tmp_path / "segmentation.json").read_text())
    assert set(report) == {"clean", "published", "skipped"}
    assert report["skipped"] == ["c/0-2"]
    assert (report["clean"]["sequences"], report["clean"]["frames"]) == (1, 3)
    assert report["clean"]["per_frame"]["dice"]["value"] == pytest.approx(0.5)
    assert report["published"]["clips_in_training"] == ["b/0-2"]
    assert report["published"]["dice"] == pytest.approx((0.5 + 1) / 2)
    assert [clip["in_training"] for clip in report["published"]["clips"]] == [False, True]
    rows = list(csv.DictReader((tmp_path / "segmentation_frames.csv").open()))
    assert [(row["sequence"], row["clip"], row["frame"], float(row["dice"])) for row in rows] == [
        ("a/0-2", "a/0-2", str(t), 0.5) for t in range(3)
    ]


def test_clips_of_one_video_are_one_sequence(tmp_path):
    videos = [{**item, "video": video} for item, video in zip(DATA, ("x", "x", "y"), strict=True)]
    run(SegmentationEvaluation(tmp_path, dataset_dir="/data"), [8, 4, 8], data=videos)
    clean = json.loads((tmp_path / "segmentation.json").read_text())["clean"]
    assert (clean["sequences"], clean["frames"]) == (2, 9)
    assert clean["per_sequence"]["dice"]["value"] == pytest.approx((0.75 + 0.5) / 2)
    assert clean["per_frame"]["dice"]["interval"] == pytest.approx([0.5, 0.75])  # not 1: clip b is never drawn alone
    rows = list(csv.DictReader((tmp_path / "segmentation_frames.csv").open()))
    assert [(row["sequence"], row["clip"]) for row in rows[::3]] == [("x", "a/0-2"), ("x", "b/0-2"), ("y", "c/0-2")]


def test_post_processed_masks_are_scored_beside_the_others(tmp_path):
    run(SegmentationEvaluation(tmp_path), [8, 8], processed=True)
    report = json.loads((tmp_path / "segmentation.json").read_text())
    assert report["clean"]["per_frame"]["dice"]["value"] == pytest.approx(0.5)
    assert report["post_processed"]["per_frame"]["dice"]["value"] == 1


def test_all_clips_shared_leaves_no_clean_result(tmp_path, caplog):
    run(SegmentationEvaluation(tmp_path, DATA), [4, 4])
    assert json.loads((tmp_path / "segmentation.json").read_text())["clean"] is None
    assert "no clean result" in caplog.text


def test_key_metric_takes_each_frame_for_itself():
    empty = torch.zeros(1, 2, 6, 6, dtype=torch.uint8)
    outputs = [{"pred": square(8), "label": square(4)}, {"pred": empty, "label": empty}]

    def step(engine: Engine, index: int) -> list[dict]:
        engine.state.batch = [{"index": index}]
        return [outputs[index]]

    engine = Engine(step)
    MeanFrameDice().attach(engine, "dice")
    engine.run(range(2))
    assert engine.state.metrics["dice"] == pytest.approx((3 * 0.5 + 2 * 1) / 5)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        MeanFrameDice()._compute(engine, "dice")


def evaluate_rank(rank: int, folder: str) -> None:
    clips = [[0, 1], [2, 0]][rank]  # the first is seen twice, as a sampler fills up
    engine = run(SegmentationEvaluation(folder, dataset_dir="/data"), [8, 4, 6], clips=clips)
    Path(folder, f"{rank}.json").write_text(json.dumps(engine.state.metrics))


def test_processes_give_together_what_one_gives(tmp_path):
    run_two_processes(evaluate_rank, str(tmp_path / "two"))
    engine = run(SegmentationEvaluation(tmp_path / "one", dataset_dir="/data"), [8, 4, 6])
    for name in ("segmentation.json", "segmentation_frames.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()
    for rank in range(2):
        assert json.loads((tmp_path / "two" / f"{rank}.json").read_text()) == engine.state.metrics


def test_picture_of_the_chosen_clip_is_drawn(tmp_path):
    run(MaskPictureHandler(tmp_path, batch=2), [4, 8])
    assert [path.name for path in Path(tmp_path / "masks").glob("*.png")] == ["0001.png"]
    assert len(list((tmp_path / "masks").glob("events*"))) == 1
