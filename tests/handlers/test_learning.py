# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image

from endofm_monai.data import ClipDataset, ClipLoader
from endofm_monai.handlers import HealthHandler, LearningReport
from endofm_monai.metrics import retrieval


def two_windows(item):
    """Two windows (3, 2, 16, 16) of a clip: its own pattern and noise that the seed draws."""
    pattern = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(item["index"]))
    noise = torch.Generator().manual_seed(item["seed"])
    return {**item, "image": [pattern + 0.1 * torch.randn(3, 2, 16, 16, generator=noise) for _ in range(2)]}


@pytest.fixture
def report(make_clip_loader, tmp_path):
    windows = ClipLoader(ClipDataset([{"image": "a"}] * 5, two_windows), 2, shuffle=True, drop_last=False)
    loaders = make_clip_loader([0, 0, 0, 1, 1, 1]), make_clip_loader([0, 1, 1, 0]), windows
    return lambda: LearningReport(*loaders, output_dir=tmp_path, repeats=2, k=3)


def test_windows_find_each_other():
    assert retrieval(torch.eye(4), torch.eye(4)) == 1
    assert retrieval(torch.eye(4), torch.eye(4).roll(1, 0)) == 0
    assert retrieval([[1, 0], [0, 1], [1, 1]], [[5, 0], [0, 3], [3, -1]]) == pytest.approx((2 + 2) / 6)
    assert retrieval(torch.zeros(4, 2), torch.zeros(4, 2)) == 0.25


def test_page_shows_what_was_learned_and_a_resumed_training_goes_on(report, make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, max_epochs=2, epochs=4, handlers=[HealthHandler(), report()])
    trainer.run()
    first = json.loads((tmp_path / "learning.json").read_text())
    assert first["before"]["retrieval"] > 0.5  # the patterns are plain to a random network
    assert [row["epoch"] for row in first["epochs"]] == [1, 2]
    resumed = make_trainer(tmp_path, epochs=4, resume=True, handlers=[HealthHandler(), report()])
    resumed.run()
    record = json.loads((tmp_path / "learning.json").read_text())
    assert record["before"] == first["before"]
    assert record["epochs"][:2] == first["epochs"]
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3, 4]
    assert record["after"].keys() == record["before"].keys() >= {"retrieval", "knn_accuracy", "knn_roc_auc"}
    assert record["uniform"] == pytest.approx(math.log(12))
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # curves and two maps; nothing drew views
    assert f"{record['after']['retrieval']:.3f}" in page
    assert "http" not in page
    for lost in ((), ("after", "uniform")):  # which is complete, or was killed before it had judged
        kept = {key: value for key, value in record.items() if key not in lost}
        (tmp_path / "learning.json").write_text(json.dumps(kept))
        make_trainer(tmp_path, epochs=4, resume=True, handlers=[HealthHandler(), report()]).run()
        assert json.loads((tmp_path / "learning.json").read_text()) == record


def test_a_report_whose_page_could_not_be_written_is_made_again(report, make_trainer, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match="report.html"):
        make_trainer(tmp_path, epochs=2, handlers=[HealthHandler(), report()]).run()
    (tmp_path / "report.html").rmdir()
    path = tmp_path / "learning.json"
    record = json.loads(path.read_text())
    record["before"]["knn_of_a_clip_that_was_lost"] = 0.5
    path.write_text(json.dumps(record))
    make_trainer(tmp_path, epochs=2, resume=True, handlers=[HealthHandler(), report()]).run()
    assert "<td>knn_of_a_clip_that_was_lost</td><td>0.500</td><td>nan</td>" in (tmp_path / "report.html").read_text()


def test_a_report_that_begins_when_a_training_is_resumed_says_so(report, make_trainer, tmp_path):
    make_trainer(tmp_path, max_epochs=2, epochs=3, handlers=[HealthHandler()]).run()
    make_trainer(tmp_path, epochs=3, resume=True, handlers=[HealthHandler(), report()]).run()
    assert "<th>before epoch 3</th>" in (tmp_path / "report.html").read_text()


def test_a_report_is_not_gone_on_with_on_other_test_clips(report, make_clip_loader, make_trainer, tmp_path):
    make_trainer(tmp_path, max_epochs=2, epochs=3, handlers=[HealthHandler(), report()]).run()
    other = report()
    other.test_loader = make_clip_loader([0, 1, 1, 1])
    with pytest.raises(
        ValueError, match=r"learning.json: was made of 4 clips, SHA-256 \w+, and the test is 4 clips, SHA-"
    ):
        make_trainer(tmp_path, epochs=3, resume=True, handlers=[HealthHandler(), other]).run()


def test_pictures_of_a_former_training_are_not_shown(make_clip_loader, make_trainer, tmp_path):
    windows = ClipLoader(ClipDataset([{"image": "a"}] * 2, two_windows), 2, shuffle=True, drop_last=False)
    handler = LearningReport(make_clip_loader([0, 1]), make_clip_loader([0, 1]), windows, tmp_path, repeats=1)
    for stale in ("views/0000011.png", "attention/0001000.png", "embeddings_before.png", "embeddings_after.png"):
        (tmp_path / stale).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / stale)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "views/0000010.png")
    make_trainer(epochs=2, handlers=[HealthHandler(), handler]).run()  # of ten iterations
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 2  # curves, and views


def test_training_is_the_same_with_and_without_a_report(report, make_trainer):
    plain = make_trainer(epochs=1)
    plain.run()
    reported = make_trainer(epochs=1, handlers=[HealthHandler(), report()])
    reported.run()
    for one, other in zip(plain.network.parameters(), reported.network.parameters(), strict=True):
        assert one.equal(other)
