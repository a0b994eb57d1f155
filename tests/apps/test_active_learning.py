# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from blob_bundles import CLASSIFICATION, DETECTION, SEGMENTATION, draw, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from endofm_monai.apps.active_learning import choose_frames, select_frames
from endofm_monai.inferers import BundleError

WINDOWS = ["a0"] * 3 + ["a1"] * 3 + ["b0"] * 3 + ["b1"] * 2
SCORES = [0.1, 0.9, 0.8, 0.3, 0.2, 0.1, 0.7, 0.7, 0.0, 0.4, 0.6]


def test_the_most_uncertain_frame_of_each_window_comes_first():
    assert select_frames(SCORES, 2, WINDOWS)[0] == 1
    assert select_frames(SCORES, 2, WINDOWS)[1] in (6, 7)
    assert select_frames(SCORES, 9, WINDOWS)[2:] == [10, 3]


def test_windows_with_an_annotated_frame_are_left_out():
    assert select_frames(SCORES, 9, WINDOWS, labeled=[0, 8]) == [10, 3]


def test_equal_scores_are_drawn_by_the_seed():
    first = {select_frames([0.0] * 11, 1, WINDOWS, seed=seed)[0] for seed in range(40)}
    assert len(first) > 5
    assert select_frames(None, 3, WINDOWS, seed=1) == select_frames(None, 3, WINDOWS, seed=1)


def test_random_takes_every_frame_equally_often():
    counts = np.zeros(11)
    for seed in range(3000):
        counts[select_frames(None, 1, WINDOWS, seed=seed)] += 1
    assert counts.min() > 200  # 273 expected
    assert counts.max() < 350


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_window_is_taken_twice(data):
    windows = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=25))
    number = len(windows)
    labeled = data.draw(st.lists(st.integers(0, number - 1), max_size=3))
    count = data.draw(st.integers(0, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    scores = random.random(number) if data.draw(st.booleans()) else None
    chosen = select_frames(scores, count, windows, labeled)
    names = [windows[index] for index in chosen]
    assert len(set(names)) == len(names)
    left = set(windows) - {windows[index] for index in labeled}
    assert set(names) <= left
    assert len(chosen) == min(count, len(left))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": [0.1] * 10}, "`scores` must be one finite number for each of 11 frames"),
        ({"scores": [math.nan] * 11}, "`scores` must be one finite number"),
        ({"scores": None, "labeled": [11]}, "indices from 0 to 10, but holds 11"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_frames(**arguments, count=1, windows=WINDOWS)


@pytest.mark.parametrize("name", [SEGMENTATION, DETECTION, CLASSIFICATION, None])
def test_frames_of_videos_to_annotate_next(tmp_path, name, caplog):
    for index in range(9):
        (tmp_path / "data" / "a").mkdir(parents=True, exist_ok=True)
        draw(index).save(tmp_path / "data" / "a" / f"{index}.png")
    bundle = name and str(make_bundle(tmp_path, name.rpartition("_")[2]))
    options = {"count": 2, "window": 3, "bundle": bundle, "output": str(tmp_path / "next.json")}
    chosen = choose_frames(str(tmp_path / "data"), **options)
    assert json.loads((tmp_path / "next.json").read_text()) == chosen
    assert len({entry["clip"] for entry in chosen}) == 2
    assert chosen[0]["image"] == "a"
    if name:
        assert 1 >= chosen[0]["uncertainty"] >= chosen[1]["uncertainty"] >= 0
    assert not caplog.messages
    (third,) = choose_frames(str(tmp_path / "data"), **options, labeled=str(tmp_path / "next.json"))
    assert {third["clip"], *(entry["clip"] for entry in chosen)} == {f"a#frames={f}-{f + 2}" for f in (0, 3, 6)}
    why = "a window gives one, or none where one of its frames is labeled"
    assert caplog.messages[-1].endswith(f"next.json: has 1 of 2 frames; {why}.")
    (tmp_path / "bad.json").write_text('[{"image": "b", "frame": 0}]')
    with pytest.raises(ValueError, match="bad.json: frame 0 of b is not among the videos"):
        choose_frames(str(tmp_path / "data"), **options, labeled=str(tmp_path / "bad.json"))


def test_frames_of_parts_and_lists_are_named_by_their_files(tmp_path):
    (tmp_path / "a").mkdir()
    for index in range(9):
        draw(index).save(tmp_path / "a" / f"{index}.png")
    items = [{"image": "a#frames=4-8"}, {"image": ["a/0.png", "a/1.png"]}, {"image": ["a/2.png", "a/3.png"]}]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    bundle = make_bundle(tmp_path / "bundles", "segmentation")
    options = {"datalist": str(tmp_path / "list.json"), "output": str(tmp_path / "next.json"), "window": 4}
    chosen = choose_frames(str(tmp_path), bundle=str(bundle), **options)
    found = {(entry["image"], entry["frame"], str(entry["clip"])) for entry in chosen}
    assert len(found) == 4
    expected = {("a", 8, "a#frames=8-8")} | {("a", frame, "a#frames=4-7") for frame in range(4, 8)}
    for pair in (items[1]["image"], items[2]["image"]):
        expected |= {(image, 0, str(pair)) for image in pair}
    assert found <= expected
    assert choose_frames(str(tmp_path), labeled=(str(tmp_path / "next.json"),), **options) == []


@pytest.mark.parametrize(("key", "value"), [("count", 0), ("count", 1.5), ("window", 0), ("seed", -1)])
def test_numbers_are_checked_before_anything_is_read(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"`{key}` must be a whole number"):
        choose_frames(str(tmp_path / "nowhere"), str(tmp_path / "next.json"), **{key: value})


def test_what_cannot_be_used_is_said_before_the_bundle_looks_at_a_frame(tmp_path, monkeypatch):
    draw(0).save(tmp_path / "0.png")
    bundle = str(make_bundle(tmp_path / "bundles", "segmentation"))
    monkeypatch.setattr("endofm_monai.inferers.predictor.Predictor.push", None)
    for entry in ('{"image": "b"}', '{"image": "b", "frame": [0]}'):
        (tmp_path / "bad.json").write_text(f"[{entry}]")
        with pytest.raises(ValueError, match="bad.json: entries need `image` and `frame`, a number"):
            choose_frames(str(tmp_path), str(tmp_path / "next.json"), bundle=bundle, labeled=str(tmp_path / "bad.json"))
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}: is a folder, expected the JSON file to write"):
        choose_frames(str(tmp_path), str(tmp_path), bundle=bundle)
    with pytest.raises(BundleError, match="the folder's name must end in"):  # and not at random, without a word
        choose_frames(str(tmp_path), str(tmp_path / "next.json"), bundle="")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to"):
        choose_frames(str(tmp_path), str(tmp_path / "file" / "next.json"), bundle=bundle)


def test_a_video_that_breaks_off_does_not_lose_the_others(tmp_path, caplog):
    for index in range(12):
        (tmp_path / "data" / "ab"[index // 6]).mkdir(parents=True, exist_ok=True)
        draw(index).save(tmp_path / "data" / "ab"[index // 6] / f"{index % 6}.png")
    (tmp_path / "data" / "a" / "5.png").write_bytes(b"torn")
    (tmp_path / "data" / "c").mkdir()
    (tmp_path / "data" / "c" / "video.mp4").write_bytes(b"torn")
    bundle = str(make_bundle(tmp_path, "segmentation"))
    options = {"output": str(tmp_path / "next.json"), "bundle": bundle, "count": 9, "window": 3}
    chosen = choose_frames(str(tmp_path / "data"), **options)
    assert {"b#frames=0-2", "b#frames=3-5"} <= {entry["clip"] for entry in chosen}
    assert not [entry for entry in chosen if (entry["image"], entry["frame"]) == ("a", 5)]
    assert "left out: " in caplog.text
    assert "a/5.png" in caplog.text
    assert "A video is left out: " in caplog.text
    random = choose_frames(str(tmp_path / "data"), **{**options, "bundle": None})
    assert {entry["image"] for entry in random} == {"a", "b"}
    shutil.rmtree(tmp_path / "data" / "b")
    shutil.rmtree(tmp_path / "data" / "c")
    (tmp_path / "data" / "a" / "1.png").write_bytes(b"torn")  # within the first frames that are decoded at once
    with pytest.raises(ValueError, match="data: none of its 1 videos can be read"):
        choose_frames(str(tmp_path / "data"), **options)
