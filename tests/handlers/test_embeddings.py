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

from endofm_monai.data import ClipDataset, ClipReadError, EpochSampler
from endofm_monai.handlers import BrokenClipsHandler, EmbeddingSaver, embed_clips
from endofm_monai.handlers.embeddings import add_embedding
from endofm_monai.handlers.results import Rows

LABELS = [0, 1, 1, 0, 2]


def read(folder: Path, name: str = "embeddings") -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_not_finite_is_no_embedding(make_clip_loader, make_evaluator, backbone, tmp_path) -> None:
    with torch.no_grad():
        backbone.cls_token.fill_(float("nan"))
    with pytest.raises(ClipReadError, match=r"^clip0\.mp4: the network's answer is not finite"):
        make_evaluator(make_clip_loader(LABELS), [EmbeddingSaver(tmp_path)]).run()
    assert not names(tmp_path)


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


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_only_the_clip_without_a_label_has_none(make_clip_loader, make_evaluator, tmp_path, batch_size: int) -> None:
    loader = make_clip_loader([0, None, 1, "mask.png", 2], batch_size=batch_size)
    make_evaluator(loader, [EmbeddingSaver(tmp_path)]).run()
    assert read(tmp_path)["labels"].tolist() == [0, -1, 1, -1, 2]


def test_a_second_run_starts_anew(make_clip_loader, make_evaluator, tmp_path) -> None:
    evaluator = make_evaluator(make_clip_loader(LABELS), [EmbeddingSaver(tmp_path)])
    evaluator.run()
    evaluator.run()
    assert len(read(tmp_path)["paths"]) == 5


@pytest.mark.parametrize(("clips", "drawn"), [(3, True), (2, False)])
def test_plot(make_clip_loader, make_evaluator, tmp_path, clips: int, drawn: bool) -> None:
    (tmp_path / "embeddings.png").touch()  # of a former run
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


def test_embeddings_are_the_network_s_in_the_order_of_the_datalist(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader([0, 1, 1, 2, 0], shuffle=True), "cpu")
    assert clips.paths == [f"clip{number}.mp4" for number in range(5)]
    assert clips.labels.tolist() == [0, 1, 1, 2, 0]
    assert clips.labels.dtype == np.int64
    dataset = make_clip_loader([0, 1, 1, 2, 0]).dataset
    with torch.no_grad():
        expected = backbone.eval()(torch.stack([dataset[number]["image"].as_tensor() for number in range(5)]))
    assert clips.embeddings.dtype == np.float32
    np.testing.assert_allclose(clips.embeddings, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_training_is_left_alone(make_clip_loader, backbone) -> None:
    loader = make_clip_loader([0, 1, 0])
    backbone.train()
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = embed_clips(backbone, loader, "cpu").embeddings
    assert all(module.training for module in backbone.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    np.testing.assert_array_equal(inside, embed_clips(backbone, loader, "cpu").embeddings)


def test_mode_is_restored_after_an_error(make_clip_loader, backbone) -> None:
    with pytest.raises(RuntimeError):
        embed_clips(backbone.train(), [{"image": torch.zeros(1, 4, 2, 16, 16)}], "cpu")
    assert backbone.training


def test_nothing_is_compiled(make_clip_loader, backbone) -> None:
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    for block in backbone.blocks:
        block.compile(backend=backend)
    embed_clips(backbone, make_clip_loader([0]), "cpu")
    assert not compiled
    backbone(torch.zeros(1, 3, 2, 16, 16))
    assert compiled


def test_broken_clips_are_left_out_also_all_of_a_batch(make_clip_loader, backbone, caplog) -> None:
    clips = embed_clips(backbone, make_clip_loader([0, 1, 0, 1, 1], unreadable=[0, 2, 3]), "cpu")
    assert "3 clips cannot be read and are left out of what is probed: clip0.mp4: truncated" in caplog.text
    assert clips.paths == ["clip1.mp4", "clip4.mp4"]
    assert clips.embeddings.shape == (2, 16)


def test_labels_that_are_not_class_indices_count_as_none(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader(["mask0.png", "mask1.png"]), "cpu")
    assert clips.labels.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="None of the 2 training clips has a class index"):
        clips.labeled("training")


def test_labeled_picks_the_clips_with_a_label(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader([0, 1, 1, None, 0], batch_size=1), "cpu")
    features, labels = clips.labeled("training")
    assert labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(features, clips.embeddings[[0, 1, 2, 4]])


def test_without_index_the_order_is_that_of_the_loader() -> None:
    batches = [{"image": torch.ones(2, 1), "path": ["b.mp4", "a.mp4"]}, {"image": torch.ones(1, 1), "path": ["c.mp4"]}]
    assert embed_clips(nn.Identity(), batches, "cpu").paths == ["b.mp4", "a.mp4", "c.mp4"]


def test_no_clips() -> None:
    clips = embed_clips(nn.Identity(), [], "cpu")
    assert (clips.embeddings.shape, clips.labels.shape, clips.paths) == ((0, 0), (0,), [])


def test_bad_items() -> None:
    with pytest.raises(ValueError, match=r"shape \(D,\), but got \(4, 2\)"):
        add_embedding(Rows(), {"path": "a.mp4"}, torch.zeros(4, 2))
    with pytest.raises(KeyError, match="path"):
        add_embedding(Rows(), {"image": torch.zeros(1)}, torch.zeros(4))
