# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import StatsHandler
from processes import run_two_processes
from torch import nn

from endofm_monai.data import ClipDataset, EpochSampler
from endofm_monai.handlers import BrokenClipsHandler, EmbeddingSaver

LABELS = [0, 1, 1, 0, 2]


def read(folder: Path, name: str = "embeddings") -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_npz_and_csv_hold_one_row_a_clip(make_clip_loader, make_evaluator, backbone, tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO, "endofm_monai"):
        make_evaluator(make_clip_loader(LABELS, shuffle=True), [EmbeddingSaver(tmp_path)]).run()
    saved = read(tmp_path)
    assert {name: array.dtype.kind for name, array in saved.items()} == {"embeddings": "f", "labels": "i", "paths": "U"}
    assert saved["paths"].tolist() == [f"clip{number}.mp4" for number in range(5)]
    assert saved["labels"].tolist() == LABELS
    assert saved["embeddings"].dtype == np.float32
    dataset = make_clip_loader(LABELS).dataset
    with torch.no_grad():
        expected = backbone.eval()(torch.stack([dataset[number]["image"].as_tensor() for number in range(5)]))
    np.testing.assert_allclose(saved["embeddings"], expected.numpy(), rtol=1e-4, atol=1e-6)

    with open(tmp_path / "embeddings.csv", newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["path", "label", *(f"e{column}" for column in range(16))]
    assert [row[0] for row in rows] == saved["paths"].tolist()
    assert [int(row[1]) for row in rows] == LABELS
    np.testing.assert_array_equal(np.array([row[2:] for row in rows], dtype=np.float32), saved["embeddings"])
    assert names(tmp_path) == ["embeddings.csv", "embeddings.npz"]
    assert [r.getMessage() for r in caplog.records if "embeddings of 5 clips" in r.getMessage()] == [
        f"Wrote the embeddings of 5 clips to {tmp_path}/embeddings.npz and .csv; 0 broken clips."
    ]


def test_clips_without_label(make_clip_loader, make_evaluator, tmp_path) -> None:
    make_evaluator(make_clip_loader([None] * 3), [EmbeddingSaver(str(tmp_path), "clips")]).run()
    assert read(tmp_path, "clips")["labels"].tolist() == [-1] * 3


def test_a_second_run_starts_anew(make_clip_loader, make_evaluator, tmp_path) -> None:
    evaluator = make_evaluator(make_clip_loader(LABELS), [EmbeddingSaver(tmp_path)])
    evaluator.run()
    evaluator.run()
    assert len(read(tmp_path)["paths"]) == 5


@pytest.mark.parametrize(("clips", "drawn"), [(3, True), (2, False)])
def test_plot(make_clip_loader, make_evaluator, tmp_path, clips: int, drawn: bool) -> None:
    make_evaluator(make_clip_loader([0, 1, 1][:clips]), [EmbeddingSaver(tmp_path, plot=True)]).run()
    assert (tmp_path / "embeddings.png").exists() == drawn


@pytest.mark.parametrize("batch_size", [1, 3])  # of which the first leaves batches without a clip
def test_broken_clips_are_listed_and_the_list_goes_with_them(
    make_clip_loader, make_evaluator, tmp_path, caplog, batch_size: int
) -> None:
    handlers = [BrokenClipsHandler("skip", max_share=0.5), EmbeddingSaver(tmp_path)]
    with caplog.at_level(logging.INFO, "endofm_monai.handlers.embeddings"):
        evaluator = make_evaluator(make_clip_loader(LABELS, unreadable=[1, 4], batch_size=batch_size), handlers)
        evaluator.run()
    assert read(tmp_path)["paths"].tolist() == ["clip0.mp4", "clip2.mp4", "clip3.mp4"]
    assert read(tmp_path)["labels"].tolist() == [0, 1, 0]
    assert (tmp_path / "embeddings_broken.csv").read_text().split() == [
        "message", "clip1.mp4:", "truncated", "clip4.mp4:", "truncated",
    ]  # fmt: skip
    assert f"2 broken clips are listed in {tmp_path}/embeddings_broken.csv." in caplog.text
    for item in evaluator.data_loader.dataset.data:
        item["unreadable"] = False
    evaluator.run()
    assert names(tmp_path) == ["embeddings.csv", "embeddings.npz"]


@pytest.mark.parametrize("others", [[], [StatsHandler(iteration_log=False)]])
def test_an_error_midway_leaves_what_was_done(make_clip_loader, make_evaluator, tmp_path, caplog, others) -> None:
    (tmp_path / "embeddings.npz").write_bytes(b"former")
    evaluator = make_evaluator(make_clip_loader(LABELS), [EmbeddingSaver(tmp_path), *others])

    @evaluator.on(Events.ITERATION_STARTED(once=3))
    def fail() -> None:
        raise RuntimeError("the cable was pulled")

    with pytest.raises(RuntimeError, match="the cable was pulled"):
        evaluator.run()
    assert names(tmp_path) == ["embeddings.npz", "embeddings.partial0.csv", "embeddings.partial0.npz"]
    assert (tmp_path / "embeddings.npz").read_bytes() == b"former"
    assert read(tmp_path, "embeddings.partial0")["paths"].tolist() == [f"clip{number}.mp4" for number in range(4)]
    assert "4 embeddings are in" in caplog.text
    make_evaluator(make_clip_loader(LABELS), [EmbeddingSaver(tmp_path)]).run()
    assert names(tmp_path) == ["embeddings.csv", "embeddings.npz"]


def test_a_full_disk_names_the_file_and_keeps_the_former(
    make_clip_loader, make_evaluator, tmp_path, monkeypatch
) -> None:
    (tmp_path / "embeddings.npz").write_bytes(b"former")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match=r"No space left on device.*embeddings"):
        make_evaluator(make_clip_loader(LABELS), [EmbeddingSaver(tmp_path)]).run()
    assert (tmp_path / "embeddings.npz").read_bytes() == b"former"
    assert names(tmp_path) == ["embeddings.npz"]


def load_number(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": torch.full((3,), float(item["index"]))}


def run_rank(rank: int, folder: str) -> None:
    dataset = ClipDataset([{"path": f"clip{number}.mp4", "label": number % 2} for number in range(5)], load_number)
    loader = DataLoader(dataset, batch_size=2, sampler=EpochSampler(dataset, shuffle=False))
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), loader, nn.Identity(), val_handlers=[EmbeddingSaver(Path(folder) / str(rank))]
    )
    evaluator.run()


def test_two_processes_write_one_table_in_the_order_of_the_datalist(tmp_path) -> None:
    run_two_processes(run_rank, str(tmp_path))
    saved = read(tmp_path / "0")
    assert saved["paths"].tolist() == [f"clip{number}.mp4" for number in range(5)]  # without the padding
    assert saved["labels"].tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(saved["embeddings"], np.repeat(np.arange(5.0)[:, None], 3, axis=1))
    assert not (tmp_path / "1").exists()
