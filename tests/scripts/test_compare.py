# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

PROBE = {"bundle": "classification", "training": ["linear_probe"]}
DATA = {**PROBE, "settings": {"dataset_dir": "."}}
THREE = {**PROBE, "settings": {"dataset_dir": ".", "class_names": ["a", "b", "c"]}}


@pytest.fixture
def trained(scripts, monkeypatch):
    """What was trained and evaluated, in order; a run's score is its seed plus its start's learning rate."""
    _, run = scripts
    calls: list[tuple[str, ...]] = []

    def run_bundle(files, log):
        settings = json.loads(Path(files[-1]).read_text())
        kind, folder = Path(files[-1]).stem, Path(files[-1]).parent
        calls.append((kind, *folder.parts[-3:]))
        if settings.get("learning_rate") == 99:
            raise RuntimeError("Failed to instantiate component 'A' with keywords: b") from ValueError("it failed")
        if kind == "train":
            (folder / "models").mkdir(exist_ok=True)
            torch.save({}, folder / "models" / "model.pt")
        else:
            assert settings["weights"] == str(folder / "models" / "model.pt")
            value = settings["seed"] + settings.get("learning_rate", 0)
            score = {"value": value, "interval": [value - 0.5, value + 1]}
            (folder / "evaluate").mkdir()
            scores = {"f1": score, "accuracy": {"value": value / 100}}
            (folder / "evaluate" / "metrics.json").write_text(json.dumps({"video": {"scores": scores}}))
        return 1.5

    monkeypatch.setattr(run, "run_bundle", run_bundle)
    monkeypatch.setattr(run, "count_parameters", lambda files: {"trained_parameters": 2, "parameters": 8})
    monkeypatch.setattr(run, "count_tokens", lambda files: 120)
    monkeypatch.setattr(run, "seconds_per_step", lambda folder: 0.25)
    return calls


@pytest.fixture
def content(tmp_path):
    """A comparison of two starts, one of them with a pre-training."""
    items = [{"image": f"{number}.mp4", "label": number % 2} for number in range(8)]
    for item in items:
        (tmp_path / item["image"]).touch()
    (tmp_path / "datalist.json").write_text(json.dumps({"training": items, "test": items}))
    return {
        "output": str(tmp_path / "out"),
        "seeds": [0, 1],
        "shares": [0.5, 1],
        "settings": {"num_workers": 0},
        "pretrainings": {"ours": {"configs": ["train", "small"]}},
        "starts": {"random": None, "pre-trained": {"pretraining": "ours", "settings": {"learning_rate": 10}}},
        "tasks": {
            "polyps": {
                **{**PROBE, "settings": {"dataset_dir": str(tmp_path), "epochs": 2}, "shares": {0.5: {"epochs": 4}}},
                "evaluation": {"num_windows": 1},
            }
        },
    }


def write(content, tmp_path) -> str:
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


@pytest.fixture
def run_all(scripts, content, tmp_path):
    """Runs the comparison as `content` is by then."""
    compare, _ = scripts
    return lambda: compare.compare(write(content, tmp_path))


def test_every_start_with_every_seed_and_share(scripts, trained, content, tmp_path):
    compare, _ = scripts
    path = write(content, tmp_path)
    compare.compare(path)
    assert trained[:2] == [("train", "pretrainings", "ours", f"seed{seed}") for seed in (0, 1)]
    assert len(trained) == 2 + 2 * 8  # a training and an evaluation of two starts, shares and seeds
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["share"]) for row in rows] == [
        ("random", "0.5"), ("pre-trained", "0.5"), ("random", "1.0"), ("pre-trained", "1.0"),
    ]  # fmt: skip
    last = rows[-1]
    assert float(last["mean"]) == 10.5
    assert float(last["deviation"]) == pytest.approx(np.std([10, 11], ddof=1))
    assert (float(last["low"]), float(last["high"])) == (10.0, 11.5)
    assert (last["tokens_per_clip"], rows[0]["tokens_per_clip"]) == ("120", "")
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert "| pre-trained | 100% | 10.500 ± 0.707 [10.000, 11.500] | 2 (25.0%) | 0.25 | 1.50 | 120 |" in table
    runs = json.loads((tmp_path / "out" / "comparison.json").read_text())
    weights = tmp_path / "out" / "pretrainings" / "ours" / "seed1" / "models" / "model.pt"
    assert runs[-1]["run"]["settings"]["backbone_weights"] == str(weights)
    assert len(runs[-1]["run"]["sha256"]["backbone_weights"]) == 64
    epochs = [run["run"]["settings"].get("epochs") for run in runs]
    assert epochs == [None, None, 4, 4, 4, 4, 2, 2, 2, 2]
    compare.compare(path)
    assert len(trained) == 18  # nothing anew
    (
        tmp_path / "out" / "runs" / "polyps" / "0.5" / "random" / "seed1" / "result.json"
    ).unlink()  # as of one that failed
    compare.write_tables(compare.plan(compare.read_comparison(Path(path)), tmp_path / "out"), tmp_path / "out")
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert "**polyps** (f1, 2 seeds)" in table
    assert "| random (seeds: 1) | 50% | 0.000 [-0.500, 1.000] |" in table
    assert "| random | 100% | 0.500 ± 0.707 [0.000, 1.500] |" in table


def test_another_score_is_that_of_an_evaluation_and_not_the_former_number(run_all, trained, content, tmp_path):
    run_all()
    content["tasks"]["polyps"]["score"] = "accuracy"
    for report in tmp_path.glob("out/runs/*/*/*/*/evaluate"):
        shutil.rmtree(report)  # which bundles write over
    run_all()
    assert "**polyps** (accuracy, 2 seeds)" in (table := (tmp_path / "out" / "comparison.md").read_text())
    assert "| pre-trained | 100% | 0.105 ± 0.007 [nan, nan] |" in table
    assert [kind for kind, *_ in trained[18:]] == ["evaluate"] * 8


def test_a_run_that_fails_does_not_stop_the_others(run_all, trained, content, tmp_path, capsys):
    content["starts"] = {"broken": {"settings": {"learning_rate": 99}}, "random": None}
    with pytest.raises(ValueError, match=r"4 of 10 runs failed, .*polyps, 50% of the labels, broken, seed 0: it"):
        run_all()
    assert "| broken" not in (tmp_path / "out" / "comparison.md").read_text()
    assert "10/10  polyps, 100% of the labels, random, seed 1: f1 1.0000" in capsys.readouterr().out


def test_a_pretraining_that_fails_does_not_stop_other_starts(run_all, trained, content, tmp_path):
    content["pretrainings"]["ours"]["settings"] = {"learning_rate": 99}
    with pytest.raises(ValueError, match=r"6 of 10 runs failed, the first one: pretraining, ours, seed 0: it failed"):
        run_all()
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert "| random | 100% | 0.500 ± 0.707" in table
    assert "| pre-trained" not in table


def test_an_evaluation_that_failed_is_done_again_without_the_training(run_all, trained, content, tmp_path):
    content |= {"starts": {"random": None}, "pretrainings": {}, "seeds": [0], "shares": [0.5]}
    in_the_way = tmp_path / "out" / "runs" / "polyps" / "0.5" / "random" / "seed0" / "evaluate"
    in_the_way.mkdir(parents=True)
    with pytest.raises(FileExistsError):
        run_all()
    in_the_way.rmdir()
    run_all()
    assert [kind for kind, *_ in trained] == ["train", "evaluate", "evaluate"]


def test_results_of_other_settings_are_not_mixed(run_all, trained, content, tmp_path):
    run_all()
    content["settings"]["num_workers"] = 1
    with pytest.raises(ValueError, match=r"seed0: was made with {'settings': {.*'num_workers': 0.*, not "):
        run_all()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("seed", 1, "there is no key `seed`. Did you mean `seeds`?"),
        ("output", None, "output: Field required."),
        ("output", "", "output: String should have at least 1 character, found ''."),
        ("seeds", 3, "seeds: Input should be a valid list, found 3."),
        ("seeds", ["a"], "seeds, 0: Input should be a valid integer, found 'a'."),
        ("seeds", [], "seeds: List should have at least 1 item after validation, not 0, found []."),
        ("seeds", [0, 0], "seeds: must be different."),
        ("shares", [0], "shares, 0: Input should be greater than 0, found 0."),
        ("shares", 0.5, "shares: Input should be a valid list, found 0.5."),
        ("shares", ["0.5"], "shares, 0: Input should be a valid number, found '0.5'."),
        ("settings", {"seed": 5}, "settings: `seed` is set by the comparison itself."),
        ("pretrainings", {"../ours": {}}, "pretrainings, ../ours, [key]: must be a name that a folder can have."),
        ("tasks", {}, "tasks: Dictionary should have at least 1 item after validation, not 0, found {}."),
        ("tasks", {"..": PROBE}, "tasks, .., [key]: must be a name that a folder can have."),
        ("tasks", {"a": {"bundle": "cooking"}}, "tasks, a, bundle: Input should be 'classification', "),
        ("tasks", {"a": {**PROBE, "shares": {0.3: {}}}}, "tasks, a: `shares` names 0.3, there are 0.5, 1.0."),
        ("tasks", {"a": {**PROBE, "settings": {}}}, "tasks, a: `settings` must name the `dataset_dir`."),
        ("settings", {"epoch": 4}, "seed 0: `epoch`: no config has such a key. Did you mean `epochs`"),
        (
            "tasks",
            {"a": {**PROBE, "evaluation": {"num_windows": 0}}},
            "`num_windows` must be a whole number from 1 on",
        ),
        ("tasks", {"a": {**PROBE, "training": ["probe"]}}, "probe.json: is named in `configs` or `training`"),
        ("tasks", {"a": {**DATA, "score": "dice"}}, "tasks, a: there is no `score` dice; there are accuracy, f1, "),
        ("tasks", {"a": THREE}, "tasks, a: there is no `score` f1; there are accuracy, macro_f1, "),
        ("tasks", {"a": {"bundle": "segmentation"}}, "training[0] has no mask, which this task needs: 0.mp4."),
        ("settings", {"backbone_weights": "b.pt"}, "settings: `backbone_weights` belongs to the settings of a start."),
        (
            "tasks",
            {"a": {**PROBE, "shares": {0.5: {"weights": "a.pt"}}}},
            "tasks, a: `weights` belongs to the settings of a start.",
        ),
        ("tasks", {"a": {**PROBE, "evaluation": {"weights": None}}}, "a: `weights` belongs to the settings of a start"),
        ("starts", None, "starts: Field required."),
        ("starts", {}, "starts: Dictionary should have at least 1 item after validation, not 0, found {}."),
        ("starts", ["random"], "starts: Input should be a valid dictionary, found ['random']."),
        ("starts", {"random": "a"}, "starts, random: Input should be a valid dictionary, found 'a'."),
        ("starts", {"a/b": None}, "starts, a/b, [key]: must be a name that a folder can have."),
        ("starts", {"a": {"pretraining": "theirs"}}, "starts, a: `pretraining` names theirs, there are ours."),
        ("starts", {"a": {"tasks": ["masks"]}}, "starts, a: `tasks` names masks, there are polyps."),
        ("starts", {"a": {"tasks": "polyps"}}, "starts, a, tasks: Input should be a valid list, found 'polyps'."),
        ("starts", {"a": {"settings": {"datalist": "b"}}}, "starts, a: `datalist` belongs to the settings of a task."),
        ("starts", {"a": {"settings": {"backbone_weights": 3}}}, "a: `backbone_weights` must be a file, found 3."),
        (
            "starts",
            {"a": {"pretraining": "ours", "settings": {"backbone_weights": "b.pt"}}},
            "starts, a: has both `pretraining` and `backbone_weights`, choose one.",
        ),
        ("starts", {"a": {"weights": "no.pt"}}, "starts, a: there is no key `weights`."),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(run_all, trained, content, tmp_path, part, value, message):
    content[part] = value
    for task in content["tasks"].values():
        task.setdefault("settings", {"dataset_dir": str(tmp_path)})
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        run_all()
    assert "\n" not in str(caught.value)
    assert trained == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "compare.yaml: cannot be read (while parsing a flow sequence"),
        ("", "compare.yaml: output: Field required."),
        ("- 1", "compare.yaml: Input should be a valid dictionary, found [1]."),
    ],
)
def test_a_file_that_is_no_comparison_is_named(scripts, tmp_path, text, message):
    compare, _ = scripts
    (tmp_path / "compare.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        compare.compare(str(tmp_path / "compare.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (None, "datalist.json: needs the list `training`"),
        (["0.mp4"], "training[0] has no label"),
        ([{"image": "0.mp4"}], "training[0] has no label"),
        ([{"image": "no.mp4", "label": 1}], "no.mp4 does not exist"),
    ],
)
def test_a_list_that_cannot_be_trained_on_is_named(run_all, trained, content, tmp_path, training, message):
    (tmp_path / "datalist.json").write_text(json.dumps({} if training is None else {"training": training}))
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        run_all()
    assert trained == []


def test_a_start_of_some_tasks_and_empty_settings(run_all, trained, content, tmp_path):
    content["tasks"]["polyps long"] = content["tasks"]["polyps"]
    content |= {"starts": {"a": {"tasks": ["polyps long"]}}, "settings": None, "pretrainings": None}
    run_all()
    runs = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {run["names"][0] for run in runs} == {"polyps long"}


def test_a_score_that_there_is_not_is_named_and_the_others_go_on(run_all, trained, content, tmp_path):
    content["tasks"] = {"first": {**content["tasks"]["polyps"], "score": "roc_auc"}, **content["tasks"]}
    with pytest.raises(ValueError, match="8 of 18 runs failed, .*the evaluation gives no score `roc_auc`; .* are f1"):
        run_all()
    assert "**polyps** (f1, 2 seeds)" in (tmp_path / "out" / "comparison.md").read_text()


def test_a_score_that_one_start_leaves_undefined_ends_no_comparison(scripts, trained, content, tmp_path, monkeypatch):
    compare, run = scripts
    items = [{"image": f"{number}.mp4", "box": [[]], "box_label": [[]]} for number in range(8)]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": items, "test": items}))
    by_start = {"finds": (0.5, [0.25, 0.75]), "finds nothing": (None, [None, None])}
    train = run.run_bundle

    def run_bundle(files, log):
        memory, (value, interval) = train(files, log), by_start[log.parts[-3]]
        report = {"scores": {"box_precision": value}, "intervals": {"box_precision": interval}}
        if log.stem == "evaluation":
            (log.parent / "evaluate" / "detection.json").write_text(json.dumps(report))
        return memory

    monkeypatch.setattr(run, "run_bundle", run_bundle)
    task = {"bundle": "detection", "score": "box_precision", "settings": {"dataset_dir": str(tmp_path)}}
    starts = dict.fromkeys(by_start)
    content |= {"tasks": {"boxes": task}, "starts": starts, "pretrainings": {}, "seeds": [0], "shares": [0.005, 0.125]}
    compare.compare(write(content, tmp_path))
    table = (tmp_path / "out" / "comparison.md").read_text()
    for share in ("0.5%", "12.5%"):
        assert f"| finds | {share} | 0.500 [0.250, 0.750] |" in table
        assert f"| finds nothing | {share} | nan [nan, nan] |" in table


def test_an_evaluation_on_another_list_is_not_mixed_with_one_of_its_former_content(run_all, trained, content, tmp_path):
    (tmp_path / "test.json").write_text(json.dumps({"test": [{"image": "0.mp4", "label": 0}]}))
    content["tasks"]["polyps"]["evaluation"]["datalist"] = str(tmp_path / "test.json")
    run_all()
    (tmp_path / "test.json").write_text(json.dumps({"test": [{"image": "1.mp4", "label": 0}]}))
    with pytest.raises(ValueError, match="seed0: was made with {'sha256': {.*'evaluation, datalist': .*, not "):
        run_all()


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"val_section": "external"}, "datalist.json: needs the list `external`, found keys ['test', 'training']"),
        ({"datalist": "no.json"}, "No such file or directory: 'no.json'"),
        ({"dataset_dir": "."}, "test[0] image: "),
    ],
)
def test_what_is_to_be_evaluated_is_missed_before_the_first_run(
    run_all, trained, content, tmp_path, evaluation, message
):
    content["tasks"]["polyps"]["evaluation"] |= evaluation
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        run_all()
    assert trained == []


def test_an_evaluation_on_data_that_its_configuration_names_needs_no_test_section(run_all, trained, content, tmp_path):
    listed = json.loads((tmp_path / "datalist.json").read_text())
    (tmp_path / "datalist.json").write_text(json.dumps({"training": listed["training"], "external": listed["test"]}))
    content["tasks"]["polyps"]["evaluation"]["validate::dataset::data::section"] = "external"
    run_all()
    assert len(trained) == 18


def test_small_shares_lie_in_large_ones_and_videos_stay_whole(scripts, tmp_path):
    compare, _ = scripts
    items = [
        {"image": f"{video}_{clip}.mp4", "video": f"v{video}", "label": int(video > 15)}
        for video in range(20)
        for clip in range(3)
    ]
    (tmp_path / "all.json").write_text(json.dumps({"training": items, "test": items[:2]}))
    taken = []
    for share in (0.1, 0.5, 1.0):
        path = compare.write_share(str(tmp_path / "all.json"), share, 0, True, tmp_path / f"{share}.json")
        content = json.loads(Path(path).read_text())
        assert content["test"] == items[:2]
        taken.append({item["image"] for item in content["training"]})
        by_class = [len({item["video"] for item in content["training"] if item["label"] == label}) for label in (0, 1)]
        assert by_class == [{0.1: 2, 0.5: 8, 1.0: 16}[share], {0.1: 1, 0.5: 2, 1.0: 4}[share]]
        assert len(content["training"]) == 3 * sum(by_class)
    assert taken[0] < taken[1] < taken[2]
    parts = [{"image": f"{video}.mp4#frames={n}-{n + 9}", "label": [0, 1]} for video in "abcd" for n in range(5)]
    (tmp_path / "parts.json").write_text(json.dumps({"training": parts}))
    path = compare.write_share(str(tmp_path / "parts.json"), 0.25, 0, True, tmp_path / "share.json")
    images = [item["image"] for item in json.loads(Path(path).read_text())["training"]]
    assert (len(images), len({image[0] for image in images})) == (5, 1)
    parts = [{"image": f"{n}.mp4", "label": [0, 1], "group": group} for group in (0, 1) for n in range(group, 10, 2)]
    (tmp_path / "parts.json").write_text(json.dumps({"training": parts}))
    path = compare.write_share(str(tmp_path / "parts.json"), 0.5, 0, True, tmp_path / "share.json")
    groups = [item["group"] for item in json.loads(Path(path).read_text())["training"]]
    assert groups in ([0] * 5, [1] * 5)  # a patient of number 0 is one, too
    (tmp_path / "many.json").write_text(json.dumps({"training": [{"image": f"{n}.mp4"} for n in range(100)]}))
    path = compare.write_share(str(tmp_path / "many.json"), 0.07, 0, False, tmp_path / "share.json")
    assert len(json.loads(Path(path).read_text())["training"]) == 7


def test_the_example_pre_trains_on_no_mask_and_no_test_video():
    example = yaml.safe_load((Path(__file__).parents[2] / "scripts" / "compare.yaml").read_text())
    assert example["settings"]["datalist"].startswith(example["settings"]["dataset_dir"])
