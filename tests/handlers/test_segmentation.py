# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from processes import run_two_processes
from video_answers import evaluate_videos, write_frames

from endofm_monai.data import ClipReadError
from endofm_monai.handlers import MaskPictureHandler, SegmentationReport
from endofm_monai.handlers.frames import true_mask


def square(top: int) -> torch.Tensor:
    """A mask (16, 16)."""
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[top : top + 8, 4:12] = 1
    return mask


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[dict[str, Any]]:
    """Videos a, b and c of three frames, with a true square at 4; c's masks are given by their folder."""
    folder = tmp_path_factory.mktemp("data")
    items = []
    for name in "abc":
        image = write_frames(folder / name, np.zeros((3, 16, 16, 3), np.uint8), "")
        mask = write_frames(folder / f"{name}_mask", [square(4).numpy() * 255] * 3)
        items.append({"image": image, "mask": mask, "name": f"{name}/0-2", "video": f"{name}/0-2"})
    items[2]["mask"] = str(folder / "c_mask")
    return items


def dice_of_volume(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    assert prediction.shape == truth.shape == (3, 8, 8)
    return {"dice": 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum()), "hd95": 0.0}


def run(
    data: list[dict],
    tops: list[int],
    output_dir: Path | None,
    *handlers: Any,
    places: list[int] | None = None,
    **options: Any,
) -> Engine:
    """An evaluator after its run with predicted squares at ``tops``; post-processing puts them right."""
    videos = iter(tops if places is None else [tops[place] for place in places])
    top = 0

    def answer(frame: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        nonlocal top
        top = next(videos) if index == 0 else top
        prediction = square(top)[None]
        logits = torch.cat([1 - prediction, prediction]).float()[..., ::2, ::2]
        return {"mask": square(4)[None], "probability": prediction.float(), "logits": logits}

    report = SegmentationReport(output_dir, clip_scores=dice_of_volume, **options)
    items = data[: len(tops)] if places is None else data
    return evaluate_videos(items, answer, *handlers, metric=report, places=places)


def test_both_protocols_stand_side_by_side_and_shared_clips_are_flagged(data, tmp_path):
    training = [{"image": [data[1]["image"][1]]}, {"image": "/data/video.mp4"}]
    broken = {**data[2], "image": [str(tmp_path / "no.png")] * 3}
    run([*data[:2], broken], [8, 4, 4], tmp_path, training_data=training)
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


@pytest.mark.parametrize(
    ("trained", "tested", "shared"),
    [
        ("/d/v.mp4#frames=0-99", "/d/v.mp4#frames=50-199", True),
        ("/d/v.mp4#frames=0-99", "/d/v.mp4", True),
        ("/d/v.mp4", "/d/w.mp4", False),
        (["/d/1.png", "/d/2.png"], ["/d/2.png", "/d/3.png"], True),
    ],
)
def test_parts_of_a_video_of_the_training_are_shared_with_it(trained, tested, shared):
    report = SegmentationReport(training_data=[{"image": trained}])
    assert report._is_shared({"image": tested, "name": "tested"}) is shared


def test_clips_of_one_video_are_one_sequence(data, tmp_path):
    videos = [{**item, "video": video} for item, video in zip(data, ("x", "x", "y"), strict=True)]
    run(videos, [8, 4, 8], tmp_path)
    clean = json.loads((tmp_path / "segmentation.json").read_text())["clean"]
    assert (clean["sequences"], clean["frames"]) == (2, 9)
    assert clean["per_sequence"]["dice"]["value"] == pytest.approx((0.75 + 0.5) / 2)
    assert clean["per_frame"]["dice"]["interval"] == pytest.approx([0.5, 0.75])  # not 1: clip b is never drawn alone
    rows = list(csv.DictReader((tmp_path / "segmentation_frames.csv").open()))
    assert [(row["sequence"], row["clip"]) for row in rows[::3]] == [("x", "a/0-2"), ("x", "b/0-2"), ("y", "c/0-2")]


def test_intervals_draw_sequences_of_one_group_together(data, tmp_path):
    items = [{**item, "group": group} for item, group in zip(data, ("g", "g", "h"), strict=True)]
    run(items, [8, 4, 8], tmp_path)
    clean = json.loads((tmp_path / "segmentation.json").read_text())["clean"]
    assert (clean["groups"], clean["sequences"], clean["frames"]) == (2, 3, 9)
    assert clean["per_sequence"]["dice"]["value"] == pytest.approx(2 / 3)  # sequences, not groups, are averaged
    assert clean["per_frame"]["dice"]["interval"] == pytest.approx([0.5, 0.75])  # not 1: clip b is never drawn alone


def test_post_processed_masks_are_scored_beside_the_others(data, tmp_path):
    run(data, [8, 8], tmp_path, post_processed=True)
    report = json.loads((tmp_path / "segmentation.json").read_text())
    assert report["clean"]["per_frame"]["dice"]["value"] == pytest.approx(0.5)
    assert report["post_processed"]["per_frame"]["dice"]["value"] == 1


def test_all_clips_shared_leaves_no_clean_result(data, tmp_path, caplog):
    run(data, [4, 4], tmp_path)
    assert (tmp_path / "segmentation_frames.csv").exists()
    run(data, [4, 4], tmp_path, training_data=data)
    assert json.loads((tmp_path / "segmentation.json").read_text())["clean"] is None
    assert not (tmp_path / "segmentation_frames.csv").exists()  # which the report would not be of
    assert "no clean result" in caplog.text


@pytest.mark.parametrize("masks", [["f0.png"] * 2, ["no.png"] * 3, ["f0.png", "f0.png", "f0"], ["f0.png", None, None]])
def test_videos_without_a_mask_for_each_frame_are_left_out(data, tmp_path, masks):
    folder = Path(data[2]["mask"])
    small = write_frames(folder.parent / "small", [np.zeros((8, 8), np.uint8)])
    paths = [small[0] if mask == "f0" else mask and str(folder / mask) for mask in masks]
    engine = run([{**data[0], "mask": paths}, data[1]], [8, 4], tmp_path)
    assert engine.state.metrics["score"] == 1
    assert json.loads((tmp_path / "segmentation.json").read_text())["skipped"] == ["a/0-2"]


def test_videos_whose_folder_has_masks_of_other_frames_are_left_out(data, tmp_path):
    item = {**data[0], "mask": str(tmp_path / "masks")}
    write_frames(tmp_path / "masks", [square(4).numpy() * 255] * 4, "")
    (tmp_path / "masks" / "1.png").unlink()
    engine = run([item, data[1]], [4, 8], tmp_path)
    assert engine.state.metrics["score"] == 1  # of the second video, whose answer is the first one asked for
    assert json.loads((tmp_path / "segmentation.json").read_text())["skipped"] == ["a/0-2"]
    state = SimpleNamespace(item=item, info=SimpleNamespace(frames=3, height=16, width=16), frame=0, piece=0)
    with pytest.raises(ClipReadError, match=r"masks/2\.png: is where the mask of .*a/1\.png is expected"):
        true_mask(state)


def test_key_metric_takes_each_frame_for_itself_without_a_report(tmp_path):
    masks = [square(4).numpy() * 255] * 3 + [np.zeros((16, 16), np.uint8)] * 2
    item = {"image": write_frames(tmp_path / "v", np.zeros((5, 16, 16, 3), np.uint8)), "name": "v"}
    item["mask"] = write_frames(tmp_path / "mask", masks)

    def answer(frame: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
        return {"probability": square(8)[None].float() * (index < 3)}

    engine = evaluate_videos([item], answer, metric=SegmentationReport())
    assert engine.state.metrics["score"] == pytest.approx((3 * 0.5 + 2 * 1) / 5)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_videos([{**item, "image": "no.mp4"}], answer, metric=SegmentationReport())


def evaluate_rank(rank: int, data: list[dict], folder: str) -> None:
    places = [[0, 1], [2, 0]][rank]  # the first is seen twice, as a sampler fills up
    engine = run(data, [8, 4, 6], Path(folder), places=places)
    Path(folder).mkdir(exist_ok=True)
    Path(folder, f"{rank}.json").write_text(json.dumps(engine.state.metrics))


def test_processes_give_together_what_one_gives(data, tmp_path):
    run_two_processes(evaluate_rank, data, str(tmp_path / "two"))
    engine = run(data, [8, 4, 6], tmp_path / "one")
    for name in ("segmentation.json", "segmentation_frames.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()
    for rank in range(2):
        assert json.loads((tmp_path / "two" / f"{rank}.json").read_text()) == engine.state.metrics


def test_picture_of_the_chosen_video_is_drawn(data, tmp_path):
    run(data, [4, 8], None, MaskPictureHandler(tmp_path, video=2))
    assert [path.name for path in Path(tmp_path / "masks").glob("*.png")] == ["0001.png"]
    assert len(list((tmp_path / "masks").glob("events*"))) == 1
