# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from processes import run_two_processes
from sklearn.metrics import f1_score
from torch import nn
from video_answers import evaluate_videos, write_frames

from endofm_monai.data import WindowPlan, collate_clips, name_clips, open_clip
from endofm_monai.engines import ClipEvaluator
from endofm_monai.formats import write_video
from endofm_monai.handlers import ClassificationReport, ProbabilitySaver
from endofm_monai.inferers import ClassificationPredictor
from endofm_monai.networks.nets import EndoFMClassifier
from endofm_monai.transforms import NormalizeClip, ScaleCropClip

NAMES = ["normal", "abnormal"]


class Predicted(Dataset):
    """Clips whose probabilities are their image, with a video, a label and a place each."""

    def __getitem__(self, index):
        item = self.data[index]
        return item if "broken" in item else {**item, "index": index, "group": item["video"]}


def clip(video, probability, label):
    return {"video": video, "image": torch.tensor([1 - probability, probability]), "label": label}


CLIPS = [
    clip("a", 0.9, 1),
    clip("a", 0.2, 1),  # mean 0.55
    clip("b", 0.6, 0),
    clip("b", 0.1, 0),  # mean 0.35
    clip("c", 0.3, 1),
    clip("c", 0.4, 1),  # mean 0.35
    clip("d", 0.2, 0),
]


def evaluate(clips, output_dir=None, score="f1", batch_size=3, dataset=Predicted, **options):
    evaluator = make_evaluator(dataset(clips), ClassificationReport(output_dir, score, NAMES, **options), batch_size)
    evaluator.run()
    return evaluator.state


def make_evaluator(dataset, report, batch_size=3):
    return ClipEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=batch_size, collate_fn=collate_clips),
        network=nn.Identity(),
        key_val_metric={"score": report},
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_probabilities_are_averaged_by_video(batch_size):
    metrics = evaluate(CLIPS, batch_size=batch_size).metrics
    assert metrics["score"] == metrics["video_f1"] == pytest.approx(f1_score([1, 0, 1, 0], [1, 0, 0, 0]))
    assert metrics["clip_f1"] == pytest.approx(f1_score([1, 1, 0, 0, 1, 1, 0], [1, 0, 1, 0, 0, 0, 0]))
    assert metrics["video_accuracy"] == 0.75


def test_undefined_scores_are_left_out_or_named():
    clips = [clip("a", 0.9, 1), clip("b", 0.8, 1)]
    assert "video_roc_auc" not in evaluate(clips).metrics
    clips = [clip("a", 0.9, 1), {**clip("b", 0.8, 0), "image": None}]  # which cannot be evaluated
    with pytest.raises(ValueError, match=r"no score 'f2' .* there are accuracy, f1"):
        evaluate(clips, score="f2")


@pytest.mark.parametrize(("score", "label"), [("roc_auc", 1), ("roc_auc", 0), (None, 0)])
def test_a_validation_of_one_class_chooses_no_weights_by_what_needs_two(tmp_path, score, label):
    clips = [{**clip(name, 0.2, label), "image": None} for name in "ab"]
    with pytest.raises(ValueError, match=r"^'score', which chooses the weights, is undefined: the validation does not"):
        evaluate(clips, score=score)
    clips = [clip(name, 0.2, label) for name in "ab"]
    evaluate(clips, tmp_path, score, resamples=0)
    scores = json.loads((tmp_path / "metrics.json").read_text())["video"]["scores"]
    assert scores[score or "f1"]["value"] is None
    assert scores["accuracy"] == {"value": 1.0 - label}  # and no interval


def test_a_folder_that_cannot_be_written_to_ends_an_evaluation_before_its_first_clip(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to"):
        evaluate([{**clip("a", 0.9, 1), "image": None}], tmp_path / "file")


def test_report(tmp_path):
    broken = {"broken": "videos/x.mp4: is not a readable video"}
    evaluate([*CLIPS, broken], tmp_path, score="accuracy", protocol="as the test says", resamples=60)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["protocol"] == "as the test says"
    assert report["unreadable"] == ["videos/x.mp4: is not a readable video"]
    assert report["video"]["number_by_class"] == {"normal": 2, "abnormal": 2}
    assert report["video"]["confusion_matrix"] == [[2, 0], [1, 1]]
    assert report["clip"]["confusion_matrix"] == [[2, 1], [3, 1]]
    accuracy = report["video"]["scores"]["accuracy"]
    assert accuracy["value"] == 0.75
    assert accuracy["interval"] == [0.25, 1.0]
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["video"] for row in rows] == ["a", "b", "c", "d"]
    assert float(rows[0]["abnormal"]) == pytest.approx(0.55)
    assert (tmp_path / "confusion.png").stat().st_size > 5000


def test_report_says_what_is_undefined(tmp_path):
    evaluate([clip("a", 0.9, 1), clip("b", 0.4, 1)], tmp_path, resamples=10)
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    score = json.loads(text)["video"]["scores"]["roc_auc"]
    assert score["value"] is None
    assert score["undefined"] == "needs items with and without a class, found 0 normal, 2 abnormal"


def test_report_of_several_labels(tmp_path):
    clips = [
        {"video": name, "image": torch.tensor(probabilities), "label": torch.tensor(label)}
        for name, probabilities, label in (("a", [0.9, 0.8], [1.0, 1.0]), ("b", [0.2, 0.7], [0.0, 0.0]))
    ]
    state = evaluate(clips, tmp_path, score="macro_f1", resamples=10)
    assert state.metrics["score"] == pytest.approx((1 + 2 / 3) / 2)
    assert "confusion_matrix" not in json.loads((tmp_path / "metrics.json").read_text())["video"]
    assert "b,0 0,0.2" in (tmp_path / "predictions.csv").read_text()


def test_only_the_best_evaluation_is_reported(tmp_path):
    dataset = Predicted(CLIPS)
    evaluator = make_evaluator(dataset, ClassificationReport(tmp_path, "accuracy", NAMES, resamples=10))
    evaluator.run(1)
    dataset.data = [{**item, "label": 1 - item["label"]} for item in CLIPS]
    evaluator.run(2)
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 1


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="no clip could be read"):
        evaluate([{"broken": "x.mp4: gone"}])


def test_bootstrap_draws_groups(tmp_path):
    """Two videos of one patient are drawn together."""
    random = np.random.default_rng(0)
    clips = [clip(str(number), float(random.random()), number // 6 % 2) for number in range(24)]

    class Grouped(Predicted):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "group": index // 6}

    widths = []
    for dataset in (Predicted, Grouped):
        evaluate(clips, tmp_path, score="accuracy", batch_size=8, dataset=dataset, resamples=40)
        scores = json.loads((tmp_path / "metrics.json").read_text())["video"]["scores"]
        widths.append(scores["accuracy"]["interval"])
    assert widths[0] != widths[1]


class WindowPredictor:
    """Answers for windows of four frames by the network; a video's last frames may be more than can be read."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def crop(self, clip: torch.Tensor) -> torch.Tensor:
        return clip[..., :16, :16] / 255

    def normalize(self, clip: torch.Tensor) -> torch.Tensor:
        return clip - 0.5

    def try_out(self) -> None:
        """It sees frames of any size."""

    def pieces(self, reader):
        for first in range(0, reader.probe().frames - 3, 4):
            frames = torch.arange(first, first + 4)
            clip = reader.read(frames)
            with torch.no_grad():
                logits = self.network(self.normalize(self.crop(clip))[None])[0]
            yield clip, {"probabilities": logits.softmax(dim=0), "frames": frames}


@pytest.fixture(scope="module")
def network() -> EndoFMClassifier:
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8, "num_frames": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return EndoFMClassifier.from_preset("tiny", num_classes=2, **size).eval()


@pytest.fixture
def videos(tmp_path) -> list[dict]:
    """A video of 20 frames, one whose 10th frame is torn, and none."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), np.uint8)
    write_video(tmp_path / "long.mp4", noise, 10)
    torn = write_frames(tmp_path / "torn", noise[:12])
    Path(torn[9]).write_bytes(b"torn")
    (tmp_path / "no.mp4").write_bytes(b"none")
    images = {"sub/long": str(tmp_path / "long.mp4"), "torn": torn, "no": str(tmp_path / "no.mp4")}
    return [
        {"image": image, "name": name, "video": f"{name}.mp4", "label": index % 2, "group": name}
        for index, (name, image) in enumerate(images.items())
    ]


def test_a_video_has_a_result_a_picture_and_a_row(videos, network, tmp_path):
    saver = ProbabilitySaver(tmp_path, class_names=NAMES, save_pictures=True, settings={"overlap": 0})
    evaluate_videos(videos, WindowPredictor(network), saver, network=network)
    long, torn, no = (json.loads((tmp_path / "videos" / f"{item['name']}.json").read_text()) for item in videos)
    assert (long["video"], long["status"], long["frames"], long["fps"]) == ("sub/long.mp4", "ok", 20, 10)
    assert long["windows_used"] == len(long["windows"]) == 5
    assert [window["begin_seconds"] for window in long["windows"]] == [0, 0.4, 0.8, 1.2, 1.6]
    assert [window["end_seconds"] for window in long["windows"]] == [0.4, 0.8, 1.2, 1.6, 2.0]
    mean = np.mean([window["probabilities"]["abnormal"] for window in long["windows"]])
    assert long["probabilities"]["abnormal"] == pytest.approx(mean, abs=1e-5)
    assert long["prediction"] == max(long["probabilities"], key=long["probabilities"].get)
    assert long["reading_seconds"] > 0
    assert long["network_seconds"] > 0
    assert (torn["status"], torn["windows_used"], torn["prediction"] is None) == ("damaged", 2, False)
    assert "f9.png" in torn["problems"][0]
    assert (no["status"], no["windows_used"], no["windows"], no["probabilities"]) == ("unreadable", 0, [], None)
    assert (tmp_path / "videos" / "sub" / "long.png").stat().st_size > 10_000
    assert (tmp_path / "videos" / "torn.png").exists()
    with (tmp_path / "predictions.csv").open() as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"sub/long.mp4", "torn.mp4", "no.mp4"}
    assert float(rows["sub/long.mp4"]["abnormal"]) == long["probabilities"]["abnormal"]


def test_parts_of_a_video_have_rows_of_their_own_in_their_order(videos, network, tmp_path):
    parts = [f"{videos[0]['image']}#frames={part}" for part in ("0-7", "8-15", "16-19")]
    items = name_clips([{"image": part, "video": "long", "label": 0, "group": "long"} for part in parts], tmp_path)
    evaluate_videos(items, WindowPredictor(network), ProbabilitySaver(tmp_path, class_names=NAMES), network=network)
    with (tmp_path / "predictions.csv").open() as file:
        rows = [(row["video"], row["name"], row["frames"]) for row in csv.DictReader(file)]
    assert rows == [("long", "long_0-7", "8"), ("long", "long_8-15", "8"), ("long", "long_16-19", "4")]


def test_windows_have_the_times_at_which_their_frames_are_shown(network, tmp_path):
    with av.open(str(tmp_path / "v.mp4"), "w") as container:  # 8 frames a tenth of a second apart, then 4 in a second
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.codec_context.time_base = 32, 32, Fraction(1, 100)
        for moment in (*range(0, 80, 10), 80, 105, 130, 155):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), moment, np.uint8), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    item = {"image": str(tmp_path / "v.mp4"), "name": "v", "video": "v", "label": 0, "group": "v"}
    saver = ProbabilitySaver(tmp_path, class_names=NAMES)
    evaluate_videos([item], WindowPredictor(network), saver, network=network)
    result = json.loads((tmp_path / "videos" / "v.json").read_text())
    assert [window["begin_seconds"] for window in result["windows"]] == [0, 0.4, 0.8]
    assert [window["end_seconds"] for window in result["windows"]] == [0.4, 0.8, round(1.55 + 1 / result["fps"], 3)]


def test_key_frames_are_those_of_the_likeliest_windows(videos, network, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("endofm_monai.handlers.classification.plot_timeline", lambda *args: drawn.append(args))
    saver = ProbabilitySaver(tmp_path, class_names=NAMES, save_pictures=True)
    evaluate_videos(videos[:1], WindowPredictor(network), saver, network=network)
    ((spans, probabilities, _, key_frames, title, _),) = drawn
    likeliest = probabilities.mean(axis=0).argmax()
    best = sorted(np.argsort(probabilities[:, likeliest])[-3:])
    assert [key_frame.seconds for key_frame in key_frames] == pytest.approx([spans[window][0] + 0.1 for window in best])
    with open_clip(videos[0]["image"]) as reader:  # pixels as they are, however the network's input is normalized
        cut = reader.read([4 * window + 1 for window in best])[..., :16, :16]
    assert torch.stack([key_frame.frame for key_frame in key_frames], dim=1).equal(cut)
    assert {key_frame.attention.shape for key_frame in key_frames} == {(2, 5, 5)}
    assert title.startswith("sub/long: normal")


def test_time_in_the_network_is_not_that_of_reading_where_a_window_takes_several_batches(videos, tmp_path):
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return torch.zeros(len(x), 2)

    plan, crop = WindowPlan(2, 3), ScaleCropClip(16, 16)  # of 20 frames, 2 a window
    predictor = ClassificationPredictor(Slow(), plan, crop, NormalizeClip(), num_crops=3, batch_size=1)
    saver = ProbabilitySaver(tmp_path, class_names=NAMES)
    evaluate_videos(videos[:1], predictor, saver, network=predictor.network)
    found = json.loads((tmp_path / "videos" / "sub" / "long.json").read_text())
    assert found["windows_used"] == 10
    assert found["network_seconds"] > 10 * 3 * 0.05


def test_a_window_of_one_frame_lasts_until_the_next_window(videos, network, tmp_path):
    predictor = ClassificationPredictor(network, WindowPlan(1, 12), ScaleCropClip(16, 16), NormalizeClip())
    evaluate_videos(videos[:1], predictor, ProbabilitySaver(tmp_path, class_names=NAMES), network=network)
    windows = json.loads((tmp_path / "videos" / "sub" / "long.json").read_text())["windows"]  # of 4 of 20 frames
    spans = [(window["begin_seconds"], window["end_seconds"]) for window in windows]
    assert spans == [(0, 0.4), (0.4, 0.8), (0.8, 1.2), (1.2, 1.6), (1.6, 2.0)]


def test_what_another_machine_left_half_written_is_no_result(videos, network, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / ".endofm-00000000-1-a.json").touch()
    evaluate_videos(
        videos[:1], WindowPredictor(network), ProbabilitySaver(tmp_path, class_names=NAMES), network=network
    )
    assert (tmp_path / "predictions.csv").read_text().splitlines()[1].startswith("sub/long.mp4,")


def test_pictures_of_a_network_that_does_not_tell_where_it_looks_are_refused_at_once(videos, tmp_path):
    saver = ProbabilitySaver(tmp_path, class_names=NAMES, save_pictures=True)
    with pytest.raises(ValueError, match="`save_pictures` shows where a network looks, which an exported one does not"):
        evaluate_videos(videos[:1], WindowPredictor(nn.Identity()), saver)


def test_several_labels_are_a_list(videos, network, tmp_path):
    saver = ProbabilitySaver(tmp_path, class_names=NAMES, multi_label=True)
    evaluate_videos(videos[:1], WindowPredictor(network), saver, network=network)
    result = json.loads((tmp_path / "videos" / "sub" / "long.json").read_text())
    assert result["prediction"] == [name for name, value in result["probabilities"].items() if value > 0.5]


def evaluate_rank(rank: int, videos: list[dict], network: nn.Module, folder: str) -> None:
    report = ClassificationReport(folder, "accuracy", NAMES, resamples=10)
    places = [[0, 2], [1, 0]][rank]  # the first is seen twice
    engine = evaluate_videos(videos, WindowPredictor(network), metric=report, network=network, places=places)
    Path(folder, f"{rank}.txt").write_text(str(engine.state.metrics["score"]))


def test_processes_give_together_what_one_gives_of_videos(videos, network, tmp_path):
    (tmp_path / "two").mkdir()
    run_two_processes(evaluate_rank, videos, network, str(tmp_path / "two"))
    report = ClassificationReport(tmp_path / "one", "accuracy", NAMES, resamples=10)
    engine = evaluate_videos(videos, WindowPredictor(network), metric=report, network=network)
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()
    assert {(tmp_path / "two" / f"{rank}.txt").read_text() for rank in range(2)} == {str(engine.state.metrics["score"])}
    written = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert (written["video"]["number"], written["clip"]["number"], len(written["unreadable"])) == (2, 7, 2)
