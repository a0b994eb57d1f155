# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from endofm_monai.data import load_datalist, open_clip
from endofm_monai.data.preparation import SourceDataset, SourceVideo, prepare_dataset
from endofm_monai.utils import TEMPORARY_PREFIX

DATASET = SourceDataset(
    name="test set", licence="none", labels={0: "even", 1: "odd"}, published={"videos": 6, "frames": 240}
)


def sources(folder: Path) -> list[SourceVideo]:
    paths = sorted(folder.glob("*.mp4"))
    return [SourceVideo(path.stem, path, labels={"label": int(path.stem) % 2}) for path in paths]


def prepare(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Prepare the videos in a folder in this process, and give the manifest."""
    prepare_dataset(DATASET, sources(folder), folder, output, **{"workers": 1, "stats": False, **options})
    return json.loads((output / "manifest.json").read_text())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_tells_what_there_is(videos, tmp_path):
    manifest = prepare(videos, tmp_path / "out", clip_seconds=1)
    assert manifest["totals"] == {
        "videos": 6,
        "clips": 12,
        "frames": 240,
        "seconds": 12.0,
        "sections": {"training": 12},
    }
    assert manifest["published"] == {"videos": 6, "frames": 240}
    assert {"python", "av", "endofm-monai"} <= set(manifest["versions"])
    entry = manifest["videos"][1]
    assert (entry["frames"], entry["fps"], entry["height"], entry["width"], entry["duration"]) == (
        40,
        20.0,
        72,
        96,
        2.0,
    )
    assert entry["source"] == ["1.mp4"]
    assert len(entry["sha256"]) == 64
    assert [clip["item"] for clip in entry["clips"]] == [
        {"image": "1.mp4#frames=0-19", "label": 1, "video": "1"},
        {"image": "1.mp4#frames=20-39", "label": 1, "video": "1"},
    ]
    items = load_datalist(tmp_path / "out" / manifest["dataset_dir"], tmp_path / "out" / "datalist.json")
    assert len(items) == 12


def test_encoded_clips_are_resized_resampled_and_without_metadata(videos, tmp_path):
    manifest = prepare(videos, tmp_path, mode="encode", clip_seconds=1, short_side=36, crf=10)
    for entry in manifest["videos"]:
        for clip in entry["clips"]:
            path = tmp_path / clip["item"]["image"]
            first, last = clip["source"]
            assert last - first + 1 == 20
            with av.open(str(path)) as container:
                assert "Doe" not in str({**container.metadata, **container.streams.video[0].metadata})
            with open_clip(path) as reader, open_clip(videos / entry["source"][0]) as original:
                info = reader.probe()
                assert (info.frames, info.fps, info.height, info.width) == (30, 30.0, 36, 48)
                frames = reader.read(range(30)).float()
                expected = original.read([first + number * 2 // 3 for number in range(30)]).float()
            expected = expected.unflatten(2, (36, 2)).unflatten(4, (48, 2)).mean((3, 5))
            assert (frames - expected).mean(0).abs().mean() < 4  # brightness: color has half the resolution
            assert b"Doe" not in path.read_bytes()


def test_encoding_keeps_rate_and_size_on_request(videos, tmp_path):
    prepare(videos, tmp_path, mode="encode", fps=None, short_side=None)
    with open_clip(tmp_path / "clips" / "3.mp4") as reader:
        info = reader.probe()
    assert (info.frames, info.fps, info.height, info.width) == (40, 20.0, 72, 96)


def test_borders_are_cut_off_and_zones_are_blanked(make_scene, write_frames, tmp_path):
    frames = []
    for shift in range(12):
        frame = np.full((144, 200, 3), 3, np.uint8)
        frame[40:112, 60:156] = make_scene(1, shift)
        frame[5:9, 5:40] = 255
        frames.append(frame)
    write_frames(tmp_path / "in" / "0.mp4", frames)
    prepare(
        tmp_path / "in", tmp_path / "out", mode="encode", short_side=None, border="crop", blank=(0.3, 0.27, 0.4, 0.4)
    )
    with open_clip(tmp_path / "out/clips/0.mp4") as reader:
        clip = reader.read(range(12)).float()
    assert abs(clip.shape[2] - 72) <= 4
    assert abs(clip.shape[3] - 96) <= 4
    assert clip[:, :, 4:14, 4:16].mean() < 8
    assert clip[:, :, 30:].mean() > 60


def test_what_is_outside_of_a_round_picture_is_blackened(make_scene, write_frames, tmp_path):
    y, x = np.mgrid[:160, :200]
    inside = (x - 100) ** 2 + (y - 80) ** 2 < 70**2
    frames = []
    for shift in range(8):
        picture = np.asarray(Image.fromarray(make_scene(2, shift)).resize((200, 160)))
        frame = np.where(inside[..., None], picture.clip(60), 0).astype(np.uint8)
        frame[14:18, 40:48] = 255  # text in the corner of the extent
        frames.append(frame)
    write_frames(tmp_path / "in" / "0.mp4", frames)
    for border, limit in (("crop", 100), ("mask", 12)):
        prepare(tmp_path / "in", tmp_path / border, mode="encode", short_side=None, border=border, crf=8)
        with open_clip(tmp_path / border / "clips/0.mp4") as reader:
            clip = reader.read(range(8)).float()
        corner = clip[:, :, :20, :20].amax()
        assert corner > limit if border == "crop" else corner < limit + 20
        assert clip[:, :, 60:80, 60:80].mean() > 50


def run_and_kill(folder: Path, output: Path, finished: int, seconds: float) -> None:
    """Start a preparation in another process, and kill it some time after it has finished some of its videos."""
    process = multiprocessing.get_context("fork").Process(
        target=prepare, args=(folder, output), kwargs={"mode": "encode", "clip_seconds": 1}
    )
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


def test_only_what_has_changed_is_done_again(videos, tmp_path, make_scene, write_frames):
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
def test_broken_videos_are_listed_and_left_out(videos, tmp_path, mode):
    folder = tmp_path / "in"
    shutil.copytree(videos, folder)
    (folder / "1.mp4").write_bytes(b"no video")
    whole = (folder / "4.mp4").read_bytes()
    (folder / "4.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    manifest = prepare(folder, tmp_path / "out", mode=mode)
    assert [entry["name"] for entry in manifest["videos"]] == ["0", "2", "3", "5"]
    assert [Path(problem.split(":")[0]).name for problem in manifest["problems"]] == ["1.mp4", "4.mp4"]
    with pytest.raises(ValueError, match="2 problems"):
        prepare(folder, tmp_path / "out", mode=mode, strict=True)
    shutil.copy(videos / "1.mp4", folder / "1.mp4")
    assert len(prepare(folder, tmp_path / "out", mode=mode)["videos"]) == 5


def test_a_frame_of_another_size_and_a_missing_one(tmp_path):
    for number in range(3):
        Image.new("RGB", (40 + (number == 2), 30), (number, 90, 90)).save(tmp_path / f"{number}.png")
    frames = [tmp_path / f"{number}.png" for number in range(4)]
    good = SourceVideo("good", frames[:2])
    videos = [good, SourceVideo("odd", frames[:3]), SourceVideo("missing", [*frames[:2], frames[3]])]
    prepare_dataset(DATASET, videos, tmp_path, tmp_path / "out", workers=1, stats=False)
    problems = json.loads((tmp_path / "out/manifest.json").read_text())["problems"]
    assert "2.png: expected 40x30 (width x height) as 0.png, found 41x30" in problems[0]
    assert "3.png: is missing (1 of 3 files are)" in problems[1]


def test_two_videos_of_the_same_name(videos, tmp_path):
    twice = [SourceVideo("a", videos / "0.mp4"), SourceVideo("a", videos / "1.mp4")]
    with pytest.raises(ValueError, match=r"1\.mp4: has the same name as .*0\.mp4: a"):
        prepare_dataset(DATASET, twice, videos, tmp_path / "out")


def test_nothing_that_can_be_used(tmp_path):
    (tmp_path / "0.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"no video could be used: .*0\.mp4: is not a readable video"):
        prepare(tmp_path, tmp_path / "out")


def test_other_settings_are_not_mixed_in(videos, tmp_path):
    prepare(videos, tmp_path / "out", clip_seconds=1)
    with pytest.raises(ValueError, match=r"was prepared with {'clip_seconds': 1}, not {'clip_seconds': 2}"):
        prepare(videos, tmp_path / "out", clip_seconds=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "cut"}, "mode: expected one of index, copy, encode, found cut"),
        ({"clip_seconds": 0}, "clip_seconds: expected a positive number"),
        ({"mode": "encode", "crf": 60}, "crf: expected 0 to 51, found 60"),
        ({"mode": "encode", "blank": (0, 0, 2, 1)}, "blank: expected x1,y1,x2,y2 as fractions"),
        ({"border": "crop"}, "border, blank: need mode=encode"),
        ({"remainder": "absorb"}, "remainder: expected one of"),
        ({"clipseconds": 5}, "clipseconds: no such option"),
    ],
)
def test_bad_settings_are_named(videos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(videos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


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


def test_labels_a_frame_are_not_encoded_away(tmp_path, videos):
    labeled = [SourceVideo("a", videos / "0.mp4", frame_labels={"box": [[]] * 40})]
    with pytest.raises(ValueError, match="a: has masks or labels a frame"):
        prepare_dataset(DATASET, labeled, videos, tmp_path / "out", workers=1, mode="encode")


def test_no_space_left(videos, tmp_path):
    output = tmp_path / "out"

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            prepare(videos, output, mode="encode")
        except OSError as error:
            os._exit(7 if "out/" in str(error) else 8)

    process = multiprocessing.get_context("fork").Process(target=fill_up)
    process.start()
    process.join(60)
    assert process.exitcode == 7
    assert not (output / "manifest.json").exists()
    assert not [path for path in output.rglob("*.mp4") if not path.name.startswith(".")]
    assert len(prepare(videos, output, mode="encode")["videos"]) == 6


def test_output_that_cannot_be_written(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="could not write.*file/out"):
        prepare(videos, tmp_path / "file" / "out")


def test_processes_and_a_dask_cluster_give_the_same(videos, tmp_path):
    options = {"mode": "encode", "workers": 2}
    alone = prepare(videos, tmp_path / "alone", mode="encode")
    prepare(videos, tmp_path / "processes", **options)
    assert content(tmp_path / "processes") == content(tmp_path / "alone")
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        prepare(videos, tmp_path / "cluster", backend="dask", scheduler=cluster.scheduler_address, **options)
    assert content(tmp_path / "cluster") == content(tmp_path / "alone")
    assert alone["totals"]["videos"] == 6


def test_pictures_show_the_set(videos, tmp_path):
    prepare(videos, tmp_path, stats=True, clip_seconds=1)
    assert np.asarray(Image.open(tmp_path / "contact_sheet.png")).shape == (2 * 96, 10 * 96, 3)
    assert np.asarray(Image.open(tmp_path / "stats.png")).std() > 20


def test_an_index_is_quick(videos, tmp_path):
    """Indexing looks at three frames a video; it must not decode the others."""
    start = time.perf_counter()
    prepare(videos, tmp_path / "index")
    index = time.perf_counter() - start
    start = time.perf_counter()
    prepare(videos, tmp_path / "encode", mode="encode")
    assert index < time.perf_counter() - start
