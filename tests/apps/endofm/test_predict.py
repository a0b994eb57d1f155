# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blob_bundles import draw
from PIL import Image

from endofm_monai.apps.endofm import __main__ as command
from endofm_monai.apps.endofm.__main__ import predict
from endofm_monai.formats import write_video
from endofm_monai.handlers.results import FrameSaver
from endofm_monai.inferers import load_predictor
from endofm_monai.utils import sha256


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """What the command, as it is typed, ends with: None where all is well."""
    monkeypatch.setattr("sys.argv", ["endofm", *words])
    try:
        command.main()
    except SystemExit as end:
        return end.code
    return None


def red_video(path: Path, frames: int = 4) -> Path:
    write_video(path, [np.asarray(draw(index)) for index in range(frames)], fps=10, crf=10)
    return path


def files(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_video_gets_the_files_of_all_bundles_and_a_report(results, blob, bundles):
    found = files(results).keys()
    assert {"segmentation/blob/masks/00000.png", "segmentation/blob/overlay.mp4"} <= found
    assert {"detection/blob/detections.csv", "detection/blob/annotations.xml", "detection/blob/overlay.mp4"} <= found
    assert {"classification/videos/blob.json", "classification/predictions.csv", "report.html"} <= found
    run_of = json.loads((results / "run.json").read_text())
    assert run_of["input"] == str(blob)
    weights = bundles / "endofm_polyp_detection" / "models" / "model.pt"
    assert run_of["models"]["detection"]["sha256"] == sha256([weights])


@pytest.mark.parametrize("words", [["pretrain", "DATA", "--configs"], ["predict", "a.mp4", "--configs", "-o", "out"]])
def test_an_option_without_its_value_is_named(words, monkeypatch):
    assert run(monkeypatch, *words) == "error: `--configs` needs a value."


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["predict", "", "-o", "out"], "an argument is empty:"),
        (["predict", "#frames=0-47", "-o", "out"], "#frames=0-47: is no path;"),
        (["train", "segmentation", ""], "an argument is empty:"),
        (["predict", "a.mp4", "-o", ""], "--output is empty:"),
        (["predict", "a.mp4", "--output="], "--output is empty:"),
        (["predict", "a.mp4", "-o="], "--output is empty:"),
    ],
)
def test_what_is_empty_is_not_the_present_folder(words, what, monkeypatch):
    assert run(monkeypatch, *words) == f"error: {what} is a variable of the shell not set?"


@pytest.mark.parametrize(
    ("amp", "of_bundle", "found"),
    [({}, None, "bfloat16"), ({"amp": False}, None, "float32"), ({}, False, "float32")],
)
def test_the_precision_is_what_the_device_is_fast_in(amp, of_bundle, found, bundles, tmp_path, monkeypatch):
    monkeypatch.setattr("endofm_monai.inferers.predictor.multiplies_faster", lambda dtype, device: True)
    bundle = tmp_path / "endofm_polyp_segmentation"
    shutil.copytree(bundles / bundle.name, bundle)
    if of_bundle is not None:
        config = json.loads((bundle / "configs" / "inference.json").read_text())
        (bundle / "configs" / "inference.json").write_text(json.dumps({**config, "amp": of_bundle}))
    predict(str(red_video(tmp_path / "v.mp4")), str(tmp_path / "out"), bundle=str(bundle), device="cpu", **amp)
    model = json.loads((tmp_path / "out" / "run.json").read_text())["models"]["segmentation"]
    assert model["precision"] == found
    assert f"computed on cpu in {found}" in (tmp_path / "out" / "report.html").read_text()


def test_the_report_names_all_devices_that_have_computed_something(bundles, tmp_path):
    options = {"bundle": str(bundles / "endofm_polyp_segmentation")}
    (folder := tmp_path / "videos").mkdir()
    for video, device, named in (("a", "cpu", "cpu"), ("a", "cpu:0", "cpu"), ("b", "cpu:0", "cpu, cpu:0")):
        if not (folder / f"{video}.mp4").exists():
            red_video(folder / f"{video}.mp4")
        predict(str(folder), str(tmp_path / "out"), **options, device=device)
        assert f"computed on {named} in float32" in (tmp_path / "out" / "report.html").read_text()


def test_the_masks_are_those_of_the_one_way_through_a_video(results, blob, bundles):
    predictor = load_predictor(bundles / "endofm_polyp_segmentation")
    for index, (_, answer) in enumerate(predictor(str(blob))):
        written = np.asarray(Image.open(results / "segmentation" / "blob" / "masks" / f"{index:05d}.png"))
        assert np.array_equal(written > 0, answer["mask"][0].numpy() > 0)
    assert index == 29


def test_started_again_it_leaves_what_is_done(results, blob, bundles):
    before = files(results / "segmentation")
    predict(str(blob), str(results), bundle=str(bundles), device="cpu")
    assert files(results / "segmentation") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "online"}, "other settings"),
        ({"overlap": 0.5}, "other settings"),
        ({"input": "another"}, "holds the results of .*blob.mp4"),
        ({"weights": "another"}, "other weights"),
    ],
)
def test_other_runs_do_not_mix_their_results_in(change, message, results, blob, bundles, tmp_path):
    arguments: dict[str, Any] = {"input": str(blob), "bundle": str(bundles), "task": "classification", **change}
    if "input" in change:
        arguments["input"] = str(red_video(tmp_path / "blob.mp4"))
    if "weights" in change:
        arguments["weights"] = str(tmp_path / "other.pt")
        state = torch.load(bundles / "endofm_polyp_classification" / "models" / "model.pt", weights_only=True)
        torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "other.pt")
    before = files(results)
    with pytest.raises(FileExistsError, match=message):
        predict(output=str(results), device="cpu", **arguments)
    assert files(results) == before


def test_a_file_that_changed_since_is_another_one(bundles, tmp_path):
    video = red_video(tmp_path / "v.mp4")
    options = {"bundle": str(bundles / "endofm_polyp_classification"), "device": "cpu"}
    predict(str(video), str(tmp_path / "out"), **options)
    red_video(video, frames=6)
    with pytest.raises(FileExistsError, match="v is another file than when it began"):
        predict(str(video), str(tmp_path / "out"), **options)


def test_another_picture_in_a_folder_makes_it_another_clip(bundles, tmp_path):
    for number in range(2):
        (tmp_path / "clip").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / "clip" / f"{number}.bmp")
    options = {"bundle": str(bundles / "endofm_polyp_classification"), "device": "cpu"}
    predict(str(tmp_path / "clip"), str(tmp_path / "out"), **options)
    (tmp_path / "clip" / "Thumbs.db").touch()
    predict(str(tmp_path / "clip"), str(tmp_path / "out"), **options)
    with (tmp_path / "clip" / "0.bmp").open("r+b") as file:  # leaves the folder's own time of change
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(FileExistsError, match="is another file than when it began"):
        predict(str(tmp_path / "clip"), str(tmp_path / "out"), **options)


@contextmanager
def stopped_at(monkeypatch: pytest.MonkeyPatch, name: str, piece: int) -> Iterator[None]:
    """Ctrl+C comes at a frame of a video."""
    add = FrameSaver._add

    def interrupt(saver: FrameSaver, engine: Any) -> None:
        if (engine.state.item["name"], engine.state.piece) == (name, piece):
            raise KeyboardInterrupt
        add(saver, engine)

    with monkeypatch.context() as patch:
        patch.setattr(FrameSaver, "_add", interrupt)
        yield


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(bundles, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for name in "ab":
        red_video(folder / f"{name}.mp4")
    words = ["predict", str(folder), "-o", str(out), "--bundle", str(bundles / "endofm_polyp_segmentation")]
    with stopped_at(monkeypatch, "b", 2):
        assert run(monkeypatch, *words) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == (
        "stopped: of 2 videos 1 by segmentation are done; the same command goes on with the others "
        "(of long videos, `--part_minutes 10` keeps more)"
    )
    assert not any("Traceback" in line or "terminating" in line for line in lines)
    done = files(out / "segmentation")
    assert "a.json" in done
    assert not any(name.startswith(("b", ".")) or "/." in name for name in done if name != "b")
    assert run(monkeypatch, *words) is None
    after = files(out / "segmentation")
    assert after["a/masks.json"] == done["a/masks.json"]
    assert "b/masks.json" in after
    assert 'href="pages/b.html"' in (out / "report.html").read_text()


def test_the_others_of_a_broken_video_are_done(bundles, tmp_path, monkeypatch):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    red_video(folder / "good one.mp4")
    (folder / "bad.mp4").write_bytes(b"nothing")
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    words = ["predict", str(folder), f"--output={out}", "--bundle", str(bundles), "--task", "detection"]
    assert run(monkeypatch, *words) == "error: 2 of 3 videos could not be read to their end: bad, gone."
    report = (out / "report.html").read_text()
    assert "unreadable" in report
    assert 'href="pages/good%20one.html"' in report
    assert (out / "detection" / "good one" / "detections.csv").exists()


@pytest.mark.parametrize("name", ["1e5", "a,b", "[x] (1)", "None", "it's", "#1 @2 %3"])
def test_names_are_taken_as_they_are_typed(name, bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("RGB", (48, 40)).save(f"images/{name}.png")
    words = ["--bundle", str(bundles), "--task=segmentation,detection", "--threshold", "0.4"]
    assert run(monkeypatch, "predict", f"images/{name}.png", *words, "-o", name + "_") is None
    assert Path(name + "_", "segmentation", name, "masks", f"{name}.png").exists()
    assert json.loads(Path(name + "_", "detection", "settings.json").read_text())["threshold"] == 0.4
    assert Path(name + "_", "report.html").exists()


def test_a_word_too_many_shows_the_words_as_they_were_typed(monkeypatch, capsys):
    assert run(monkeypatch, "predict", "a b.mp4", "out", "1") == 2
    assert "\nUsage: endofm predict 'a b.mp4' out -\n" in capsys.readouterr().err


def test_a_part_of_a_video(blob, bundles, tmp_path):
    options = {"bundle": str(bundles), "device": "cpu", "task": "detection,classification"}
    predict(f"{blob}#frames=5-14", str(tmp_path / "out"), **options)
    rows = (tmp_path / "out" / "detection" / "blob_5-14" / "detections.csv").read_text().splitlines()
    likely = [row.split(",") for row in rows[1:] if float(row.split(",")[-1]) > 0.5]
    assert [int(row[1]) for row in likely] == [4, 5, 6, 7, 8, 9]


def test_parts_of_a_long_video_that_are_done_stay(blob, bundles, tmp_path, monkeypatch):
    """Stopped in its second part, and begun without parts at all: neither is lost nor in the way."""
    words = ["predict", str(blob), "-o", str(tmp_path / "out"), "--bundle", str(bundles / "endofm_polyp_segmentation")]
    in_parts = [*words, "--part_minutes", str(1 / 60)]  # a second of 10 frames
    with stopped_at(monkeypatch, "blob", 5):
        assert run(monkeypatch, *words) == 130
    with stopped_at(monkeypatch, "blob_10-19", 5):
        assert run(monkeypatch, *in_parts) == 130
    done = files(tmp_path / "out" / "segmentation")
    assert "blob_0-9.json" in done
    assert run(monkeypatch, *in_parts) is None
    after = files(tmp_path / "out" / "segmentation")
    assert after["blob_0-9/masks.json"] == done["blob_0-9/masks.json"]
    assert {"blob_10-19.json", "blob_20-29.json"} <= after.keys()
    page = (tmp_path / "out" / "pages" / "blob_10-19.html").read_text()
    assert "blob.mp4#frames=10-19" in page
    assert "10 frames, 10 a second" in page


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_small_stills_of_any_kind_and_size(size, bundles, tmp_path):
    Image.new("RGB", size, (200, 60, 60)).save(tmp_path / "still.png")
    predict(str(tmp_path / "still.png"), str(tmp_path / "out"), bundle=str(bundles), device="cpu")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<video" not in page
    assert page.count("data:image/jpeg") == 2
    assert np.asarray(Image.open(tmp_path / "out/segmentation/still/masks/still.png")).shape == size[::-1]


def test_pictures_of_a_folder_are_a_clip_or_stills(bundles, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(2):
        draw(index).resize((96 + 16 * index, 72)).save(folder / f"{index}.png")
    words = ["predict", str(folder), "--bundle", str(bundles), "--task", "detection", "-o"]
    said = run(monkeypatch, *words, str(tmp_path / "clip"))
    assert said == (
        "error: 1 of 1 videos could not be read to their end: pictures. "
        "Pictures that are no clip need `--single_images True`."
    )
    assert run(monkeypatch, *words, str(tmp_path / "stills"), "--single_images", "True") is None
    assert {"0.json", "1.json"} <= files(tmp_path / "stills" / "detection").keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.mp4"], r"no.mp4: there is no such file or folder."),
        (["INPUT", "--task", "seg"], "`task` must be some of segmentation, detection, classification, .* found 'seg'"),
        (
            ["INPUT", "--frame_sise", "9"],
            "`frame_sise`: inference.json of endofm_polyp_.* has no such key. Did you mean `frame_size`",
        ),
        (["INPUT", "--dataset_dir", "other"], "`dataset_dir`: the command sets it itself"),
        (["INPUT", "--output_dir", "other"], "`output_dir`: the command sets it itself"),
        (["INPUT", "--part_minutes", "abc"], "`part_minutes` must be a number above 0, found 'abc'"),
        (["INPUT", "--mode", "live"], '`mode` must be "offline" or "online"'),
        (["INPUT", "--device", "cuda:77"], "`device` must be one to compute on"),
        (["INPUT", "--bundle", "absent"], "absent: is no existing folder; name .* by `--bundle`"),
        (["INPUT", "--weights", "none.pt"], "none.pt: is missing"),
        (["INPUT", "-o", "FILE"], "file: cannot be written to"),
        (["INPUT", "-o", "FULL"], r"holds other files \(file\); choose another `--output`"),
        (["FULL", "-o", "FULL/out"], "lies in the input"),
        (
            ["INPUT", "--bundle", "RELEASED", "--frame_size", "300"],
            "endofm_polyp_segmentation/.* of this `frame_size`: Frames must .* multiples of 16 pixels, got 300x300",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_is_written(
    words, message, blob, bundles, tmp_path, monkeypatch, capsys
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    places = {
        "INPUT": blob,
        "FILE": tmp_path / "full/file",
        "FULL": tmp_path / "full",
        "FULL/out": tmp_path / "full/out",
        "RELEASED": command.BUNDLES / "endofm_polyp_segmentation",
    }
    words = ["predict", *(str(places.get(word, word)) for word in words)]
    words += [] if "-o" in words else ["-o", str(tmp_path / "out")]
    words += [] if "--bundle" in words else ["--bundle", str(bundles)]
    said = run(monkeypatch, *words)
    assert isinstance(said, str)
    assert "\n" not in said
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)
    assert sorted(os.listdir(tmp_path)) == ["full"]
    assert os.listdir(tmp_path / "full") == ["file"]


@pytest.mark.parametrize("kind", ["missing", "damaged", "not as shared", "of another network"])
def test_bundles_whose_weights_cannot_be_used(kind, blob, bundles, tmp_path, monkeypatch):
    bundle = shutil.copytree(bundles / "endofm_polyp_segmentation", tmp_path / "endofm_polyp_segmentation")
    weights = bundle / "models" / "model.pt"
    expected = {
        "missing": "models/model.pt: is missing (model.safetensors is, too), the bundle has no weights",
        "damaged": "cannot be read: damaged",
        "not as shared": "is not the file that was shared",
        "of another network": "does not fit BlobSegmenter",
    }[kind]
    if kind == "missing":
        weights.unlink()
    if kind == "damaged":
        weights.write_bytes(weights.read_bytes()[:900])
    if kind == "not as shared":
        listed = f"large_files:\n- path: models/model.pt\n  hash_val: {'0' * 64}\n  hash_type: sha256\n"
        (bundle / "large_files.yml").write_text(listed)
    if kind == "of another network":
        shutil.copy(bundles / "endofm_polyp_classification" / "models" / "model.pt", weights)
    said = run(monkeypatch, "predict", str(blob), "-o", str(tmp_path / "out"), "--bundle", str(bundle))
    assert isinstance(said, str)
    assert said.startswith("error: ")
    assert expected in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_the_present_folder_or_a_link_of_its_name(blob, bundles, tmp_path, monkeypatch):
    shutil.copytree(
        bundles / "endofm_polyp_classification", tmp_path / "snapshots" / "3f7a"
    )  # as Hugging Face keeps them
    link = tmp_path / "endofm_polyp_classification"
    link.symlink_to("snapshots/3f7a")
    assert run(monkeypatch, "predict", str(blob), "-o", str(tmp_path / "out"), "--bundle", str(link)) is None
    monkeypatch.chdir(link.parent / "snapshots" / "3f7a")
    said = run(monkeypatch, "predict", str(blob), "-o", str(tmp_path / "other"), "--bundle", ".")
    assert (
        said == f"error: {os.getcwd()}: the folder's name must end in one of segmentation, detection, classification."
    )
    monkeypatch.chdir(bundles / "endofm_polyp_classification")
    assert run(monkeypatch, "predict", str(blob), "-o", str(tmp_path / "other"), "--bundle", ".") is None


def test_info_tells_versions_bundles_and_weights(bundles, tmp_path, monkeypatch, capsys):
    shutil.copytree(bundles, tmp_path / "some")
    (tmp_path / "some" / "endofm_polyp_detection" / "models" / "model.pt").unlink()
    config = tmp_path / "some" / "endofm_polyp_classification" / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_frames": 0}))
    assert run(monkeypatch, "info", "--bundle", str(tmp_path / "some")) is None
    said = capsys.readouterr().out
    assert f"torch {torch.__version__}" in said
    assert "device: " in said
    assert sha256([bundles / "endofm_polyp_segmentation" / "models" / "model.pt"]) in said
    assert "endofm_polyp_detection: " in said
    assert "model.pt: is missing" in said
    assert "endofm_polyp_classification: `num_frames` must be" in said
    assert run(monkeypatch, "info", "--bundle", str(tmp_path / "some" / "endofm_polyp_segmentation")) is None
    assert "endofm_polyp_segmentation 0" in capsys.readouterr().out
    assert run(monkeypatch, "info", "--bundle", str(tmp_path / "none")) == (
        f"error: {tmp_path / 'none'}: is no existing folder; name a bundle, or the folder of bundles, by `--bundle`."
    )
