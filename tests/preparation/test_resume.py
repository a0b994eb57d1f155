# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs that go on from an earlier one, and checks of what it made."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from small_sets import content, make_scene, prepare, write_frames

from endofm_monai.utils import TEMPORARY_PREFIX


def run_and_kill(folder: Path, output: Path, finished: int, seconds: float) -> None:
    """Start a preparation in another process, and kill it some time after it has finished some of its videos."""
    context = multiprocessing.get_context("forkserver")  # a fork of this process would wait for locks of its threads
    context.set_forkserver_preload(["endofm_monai.preparation"])
    process = context.Process(target=prepare, args=(folder, output), kwargs={"mode": "encode", "clip_seconds": 1})
    process.start()
    while process.is_alive() and len(list((output / "records").glob("[0-9]*.json"))) < finished:
        time.sleep(0.002)
    process.join(seconds)
    process.kill()
    process.join()


def test_a_killed_run_goes_on_to_the_same_result(videos, tmp_path):
    prepare(videos, tmp_path / "whole", mode="encode", clip_seconds=1)
    for finished, seconds in zip((0, 1, 3, 5), np.random.default_rng().uniform(0, 0.1, 4), strict=True):
        run_and_kill(videos, tmp_path / "killed", finished, seconds)
    prepare(videos, tmp_path / "killed", mode="encode", clip_seconds=1)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_only_what_has_changed_is_done_again(videos, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(videos, folder)
    before = prepare(folder, tmp_path / "out", mode="encode")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/clips").iterdir()}
    write_frames(folder / "2.mp4", [make_scene(99, shift) for shift in range(10)])
    (tmp_path / "out/clips/4.mp4").unlink()
    after = prepare(folder, tmp_path / "out", mode="encode")
    changed = {path.name for path in (tmp_path / "out/clips").iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"2.mp4", "4.mp4"}
    assert [entry["frames"] for entry in after["videos"]] == [40, 40, 10, 40, 40, 40]
    assert after["videos"][4] == before["videos"][4]


def test_verify_finds_every_change(videos, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(videos, folder)
    prepare(folder, tmp_path / "out", mode="encode")
    prepare(folder, tmp_path / "out", verify=True)
    with open(folder / "0.mp4", "ab") as file:
        file.write(b"x")
    clip = tmp_path / "out/clips/3.mp4"
    clip.write_bytes(clip.read_bytes()[:-1] + b"\0")
    (tmp_path / "out/clips/5.mp4").unlink()
    with pytest.raises(ValueError, match=r"3 differences") as raised:
        prepare(folder, tmp_path / "out", verify=True)
    assert "0.mp4 has changed" in str(raised.value)
    assert "3.mp4 has changed" in str(raised.value)
    assert "5.mp4 is missing" in str(raised.value)


@pytest.mark.parametrize("mode", ["index", "encode"])
def test_an_output_behind_a_link_finds_its_sources(videos, tmp_path, mode):
    """As folders of users lead to the large disk of a cluster."""
    (tmp_path / "disk" / "of" / "user").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "of" / "user")
    manifest = prepare(videos, tmp_path / "link" / "out", mode=mode)
    assert (tmp_path / "link" / "out" / manifest["source"] / "0.mp4").samefile(videos / "0.mp4")
    prepare(videos, tmp_path / "link" / "out", mode=mode, verify=True)


def test_files_of_others_in_the_output_are_left_alone(videos, tmp_path):
    kept = [tmp_path / ".hidden", tmp_path / "clips" / ".profile", tmp_path / "other" / ".x-abcdefgh.mp4"]
    left = tmp_path / "clips" / f"{TEMPORARY_PREFIX}0-abcd_fg1.mp4"  # by a killed run
    for path in (*kept, left):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    prepare(videos, tmp_path, mode="encode")
    assert all(path.exists() for path in kept)
    assert not left.exists()
    with pytest.raises(ValueError, match="output: needs another folder than the source"):
        prepare(videos, videos)
