# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import nn
from video_answers import evaluate_videos, write_frames

from endofm_monai.data import clip_state, list_videos, open_clip
from endofm_monai.formats import MASK_WRITERS, read_cvat_xml, write_video
from endofm_monai.handlers import DetectionSaver, MaskSaver, ProgressHandler
from tests.support.dicom import write_dicom

FRAMES = 12
NONE = {"box": torch.zeros(0, 4), "label": torch.zeros(0, dtype=torch.long), "label_scores": torch.zeros(0)}


def frames(count: int = FRAMES) -> np.ndarray:
    """A bright square that moves to the right, one pixel a frame."""
    made = np.zeros((count, 32, 48, 3), np.uint8)
    for index in range(count):
        made[index, 8:16, index : index + 8] = 255
    return made


def bright(frame: torch.Tensor, index: int) -> dict[str, torch.Tensor]:
    """Foreground is where the frame is bright, and a detection in the first frame."""
    box = {"box": torch.tensor([[1.0, 2.0, 20.0, 22.0]]), "label": torch.ones(1).long(), "label_scores": torch.ones(1)}
    return {"mask": (frame[:1] > 128).byte(), **(NONE if index else box)}


@pytest.fixture
def case(tmp_path) -> dict[str, Any]:
    return {"image": write_frames(tmp_path / "data" / "case", frames()), "name": "case/f0-f11"}


def result(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def test_a_video_gets_masks_in_all_formats_and_a_result(tmp_path):
    write_video(tmp_path / "clip.mp4", frames(), 25, crf=0)
    evaluate_videos([{"image": str(tmp_path / "clip.mp4"), "name": "sub/clip"}], bright, MaskSaver(tmp_path / "out"))
    folder = tmp_path / "out" / "sub" / "clip"
    assert {path.name for path in folder.iterdir()} == {"masks", "masks.nii.gz", "masks.json", "overlay.mp4"}
    assert (folder / "masks.nii.gz").read_bytes()[3:8] == bytes(5)  # neither a name within nor a time
    files = sorted((folder / "masks").iterdir())
    assert [path.name for path in files] == [f"{index:05d}.png" for index in range(FRAMES)]
    read = np.stack([np.asarray(Image.open(path)) for path in files])
    assert ((read > 0) == (frames()[..., 0] > 128)).mean() > 0.998
    assert [entry["file_name"] for entry in json.loads((folder / "masks.json").read_text())["images"]] == [
        path.stem for path in files
    ]
    with open_clip(folder / "overlay.mp4") as reader:
        assert (reader.probe().frames, reader.probe().fps) == (FRAMES, 25)
    expected = {"video": "sub/clip", "status": "ok", "problems": [], "frames": FRAMES, "fps": 25.0}
    expected["state"] = clip_state(str(tmp_path / "clip.mp4"))
    assert result(tmp_path / "out", "sub/clip") == expected


def test_detections_of_each_video_have_a_folder(tmp_path, case):
    other = {"image": write_frames(tmp_path / "2", frames(2)), "name": "2/case"}
    evaluate_videos(
        [case, other], bright, DetectionSaver(tmp_path, class_names=("adenoma", "other"), formats=("csv", "coco"))
    )
    for item in (case, other):
        assert {path.name for path in (tmp_path / item["name"]).iterdir()} == {"detections.csv", "detections.json"}
        assert [r["image_id"] for r in json.loads((tmp_path / item["name"] / "detections.json").read_text())] == [1]


@pytest.mark.parametrize("as_folder", [False, True])
def test_frames_keep_their_names_and_still_images_are_videos(tmp_path, case, as_folder):
    still = {"image": case["image"][3], "name": "case/f3"}
    if as_folder:
        case["image"] = str(tmp_path / "data" / "case")
    evaluate_videos([case, still], bright, MaskSaver(tmp_path / "out", formats=["png"]))
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    names = {f"case/f0-f11/masks/f{index}.png" for index in range(FRAMES)}
    assert written == names | {"case/f3/masks/f3.png"}
    write_dicom(tmp_path / "1.2.840.7", bytes(16 * 24), NumberOfFrames=None)
    evaluate_videos([{"image": str(tmp_path / "1.2.840.7"), "name": "still"}], bright, MaskSaver(tmp_path / "out"))
    (image,) = json.loads((tmp_path / "out" / "still" / "masks.json").read_text())["images"]
    assert image["file_name"] == "1.2.840.7"


def test_a_part_keeps_the_names_and_numbers_of_its_frames(tmp_path, case):
    part = {"image": f"{tmp_path / 'data' / 'case'}#frames=3-5", "name": "part"}
    evaluate_videos([part], bright, MaskSaver(tmp_path, formats=["png"]))
    assert sorted(path.name for path in (tmp_path / "part" / "masks").iterdir()) == ["f3.png", "f4.png", "f5.png"]
    evaluate_videos([part], bright, DetectionSaver(tmp_path, class_names=("adenoma", "other"), formats=("cvat",)))
    annotations = read_cvat_xml(tmp_path / "part" / "annotations.xml")
    assert (annotations.start, annotations.frames) == (3, 3)


def test_a_broken_video_leaves_no_half_file_and_the_next_goes_on(tmp_path, case, caplog):
    Path(case["image"][9]).write_bytes(b"damaged")
    write_video(tmp_path / "clip.mp4", frames(), 25)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    items = [{"image": str(tmp_path / f"{name}.mp4"), "name": name} for name in ("no", "clip")]
    evaluate_videos([case, *items], bright, MaskSaver(tmp_path / "out"))
    assert not list((tmp_path / "out" / "case" / "f0-f11").iterdir())
    assert "case/f0-f11: only the first 9 pieces" in caplog.text
    damaged, unreadable = result(tmp_path / "out", "case/f0-f11"), result(tmp_path / "out", "no")
    assert (damaged["status"], damaged["frames"]) == ("damaged", FRAMES)
    assert "f9.png" in damaged["problems"][0]
    assert (unreadable["status"], unreadable["frames"]) == ("unreadable", None)
    assert (tmp_path / "out" / "clip" / "masks.nii.gz").exists()


def test_an_error_leaves_nothing_half_written(tmp_path, case):
    def fail(frame, index):
        if index == 5:
            raise RuntimeError("the network broke")
        return bright(frame, index)

    with pytest.raises(RuntimeError, match="the network broke"):
        evaluate_videos([case], fail, MaskSaver(tmp_path / "out"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_run_started_again_does_what_is_left(tmp_path, case):
    folder = tmp_path / "data"
    (folder / "no.mp4").write_bytes(b"no video")
    saver = MaskSaver(tmp_path / "out", formats=["png"], settings={"window": 8})
    evaluate_videos([case, {"image": str(folder / "no.mp4"), "name": "no"}], bright, saver)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"test": [[f"case/f{index}.png" for index in range(FRAMES)], "no.mp4"]}))
    left = list_videos(folder, listed, results_dir=tmp_path / "out")
    assert [item["name"] for item in left] == ["no"]


def test_a_result_of_another_file_of_the_name_does_not_stand_for_it(tmp_path):
    """As of two hospitals that call a video the same, or where ``a.avi`` comes to ``a.mp4`` and takes its name."""
    for count, name in enumerate(("a/v.mp4", "b/v.mp4", "a/w/v.mp4"), start=2):
        write_video(tmp_path / name, frames(count), 25)
    for item in list_videos(tmp_path / "a", results_dir=tmp_path / "out"):
        evaluate_videos([item], bright, MaskSaver(tmp_path / "out", formats=["coco"]))
    assert list_videos(tmp_path / "a", results_dir=tmp_path / "out") == []
    shutil.copytree(tmp_path / "a", tmp_path / "scratch", copy_function=shutil.copyfile)  # at another time
    assert list_videos(tmp_path / "scratch", results_dir=tmp_path / "out") == []
    with pytest.raises(FileExistsError, match=r"out/v\.json: is the result of another file than .*b/v\.mp4"):
        list_videos(tmp_path / "b", results_dir=tmp_path / "out")
    (tmp_path / "a" / "w" / "v.mp4").rename(tmp_path / "a" / "v.avi")
    with pytest.raises(FileExistsError, match=r"out/v\.json: is the result of another file than .*a/v\.avi"):
        list_videos(tmp_path / "a", results_dir=tmp_path / "out")


@pytest.mark.parametrize("changed", ["window", "formats", "weights_sha256", None])
def test_results_of_other_settings_are_not_mixed(tmp_path, case, changed):
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2).bfloat16())  # with an integer, and a bare number

    def run() -> None:
        formats = ["png", "coco"] if changed == "formats" and (tmp_path / "out").exists() else ["png"]
        settings = {"window": 4 if changed == "window" and (tmp_path / "out").exists() else 8}
        saver = MaskSaver(tmp_path / "out", formats=formats, settings=settings)
        evaluate_videos([case], bright, saver, network=network)

    run()
    if changed is None:
        return run()
    if changed == "weights_sha256":
        network[1].bias.data += 1
    with pytest.raises(FileExistsError, match=rf"other settings \({changed}\)"):
        run()


@pytest.mark.parametrize("window", [8, 4])
def test_settings_count_where_nothing_is_left_to_do(tmp_path, case, window, recwarn):
    evaluate_videos([case], bright, MaskSaver(tmp_path, formats=["png"], settings={"window": 8}))
    saver, loaded = MaskSaver(tmp_path, formats=["png"], settings={"window": window}), []

    class Weights:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.STARTED, lambda: loaded.append(True))

    with pytest.raises(FileExistsError, match=r"other settings \(window\)") if window == 4 else nullcontext():
        evaluate_videos([], bright, Weights(), saver, ProgressHandler())
    assert loaded
    assert not [warning for warning in recwarn if "`dataloader` is empty" in str(warning.message)]


def test_without_settings_results_are_overwritten(tmp_path, case):
    for threshold in (0.5, 0.6):
        evaluate_videos([case], bright, DetectionSaver(tmp_path / "out", threshold=threshold))
    assert not (tmp_path / "out" / "settings.json").exists()


def test_unknown_format_is_named():
    with pytest.raises(ValueError, match=r"png, nifti, coco, overlay, but got dicom"):
        MaskSaver("out", formats=["png", "dicom"])
    with pytest.raises(ValueError, match="coco, csv, cvat, overlay, but got gif"):
        DetectionSaver("out", formats=("csv", "gif"))
    assert MaskSaver("out").formats == list(MASK_WRITERS)
