# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from blob_bundles import box, truth
from PIL import Image

from endofm_monai.apps.endofm.__main__ import predict
from endofm_monai.apps.endofm.findings import VideoFindings, find_polyps, read_findings
from endofm_monai.apps.endofm.report import MAX_MARKS, _class_marks, _pictures, _polyp_marks, _row, _stage, write_report
from endofm_monai.data import list_videos, open_clip
from endofm_monai.formats import write_video
from endofm_monai.utils import write_json

FIRST, LAST = 9, 19
TASKS = ("detection", "segmentation", "classification")


def detections(folder: Path, rows: list[tuple[int, float, float]], threshold: float = 0.5) -> Path:
    """A task's folder with a table of square boxes ``(frame, x1, score)`` with sides of 10."""
    write_json(folder / "detection" / "settings.json", {"threshold": threshold})
    table = folder / "detection" / "v" / "detections.csv"
    table.parent.mkdir()
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "frame", "x1", "y1", "x2", "y2", "label", "class", "score"])
        writer.writerows([["v", frame, x1, 0, x1 + 10, 10, 1, "polyp", score] for frame, x1, score in rows])
    return folder / "detection"


def test_a_polyp_is_found_from_its_first_to_its_last_frame(results, blob):
    video = read_findings(results, TASKS, *list_videos(blob))
    assert (video.frames, video.fps, video.width, video.height) == (30, 10, 96, 72)
    (boxed,), (masked,) = video.polyps["detection"], video.polyps["segmentation"]
    assert (boxed.first, boxed.last, boxed.frames) == (FIRST, LAST, 11)
    assert (masked.first, masked.last) == (FIRST - 1, LAST)  # the network looks one frame ahead
    x1, y1, x2, y2 = box(0)
    assert boxed.size == pytest.approx((x2 + 1 - x1) * (y2 + 1 - y1), rel=0.1)
    assert masked.size == pytest.approx(truth(0).sum(), rel=0.35)
    assert boxed.score is not None
    assert boxed.score > 0.5
    assert masked.score is None
    assert [video.when(frame) for frame in (0, FIRST, 30)] == ["0:00.00", "0:00.90", "0:03.00"]


def test_a_polyp_that_is_missed_for_a_moment_is_the_same(tmp_path):
    rows = [(3, 0, 0.6), (4, 1, 0.9), (7, 2, 0.7), (7, 50, 0.8), (8, 51, 0.4), (14, 2, 0.5)]
    found = find_polyps(detections(tmp_path, rows), "v", np.arange(20) / 5)  # half a second are 2 frames
    assert [(polyp.first, polyp.last, polyp.frames, polyp.best, polyp.score) for polyp in found] == [
        (3, 7, 3, 4, 0.9),
        (7, 7, 1, 7, 0.8),
        (14, 14, 1, 14, 0.5),
    ]
    assert {polyp.size for polyp in found} == {100}


def test_how_long_a_polyp_is_missed_is_of_the_clock_of_the_video(tmp_path):
    """Frames 0 to 3 are a second apart, 4 to 9 a tenth; then comes an hour: 0.003 a second on the mean."""
    times = np.cumsum([0, 1, 1, 1, 1, *[0.1] * 5, 3600])
    found = find_polyps(
        detections(tmp_path, [(0, 0, 0.9), (2, 0, 0.9), (5, 0, 0.9), (9, 0, 0.9), (10, 0, 0.0)], 0), "v", times
    )
    assert [(polyp.first, polyp.last) for polyp in found] == [(0, 0), (2, 2), (5, 10)]


def test_a_score_of_nothing_has_its_frame(tmp_path):
    (found,) = find_polyps(detections(tmp_path, [(3, 0, 0.0), (4, 0, 0.0)], threshold=0), "v", np.arange(9) / 5)
    assert (found.best, found.score) == (3, 0.0)


def test_times_are_those_of_the_clock_of_the_video(results, blob, monkeypatch):
    """As of a video whose frame rate varies."""
    times = np.cumsum(np.r_[0, np.full(29, 0.1) + 3600 * (np.arange(29) == 3)])
    (item,) = list_videos(blob)
    with open_clip(blob) as reader:
        monkeypatch.setattr(type(reader), "times", lambda self: times)
        video = read_findings(results, TASKS, item)
    assert [video.when(frame) for frame in (3, 4, 30)] == ["0:00.30", "1:00:00.40", "1:00:03.00"]


def test_the_page_tells_what_was_found_with_what(results):
    page = (results / "report.html").read_text()
    run = json.loads((results / "run.json").read_text())
    for model in run["models"].values():
        assert model["sha256"] in page
    assert "For research only. Not a medical device" in page
    assert re.findall(r"<b>(\d+)</b>polyps, by (\w+)", page) == [("1", "boxes"), ("1", "masks")]
    assert page.count("data:video/mp4;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert '<button data-task="detection" data-frame="9">9</button>' in page


def test_a_video_without_a_polyp_says_so(bundles, tmp_path):
    write_video(tmp_path / "black.mp4", np.zeros((6, 40, 48, 3), np.uint8), 10)
    predict(str(tmp_path / "black.mp4"), str(tmp_path / "out"), bundle=str(bundles), device="cpu")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No polyp was found in any frame." in page
    assert "<b>0</b>polyps, by boxes" in page
    assert "<b>normal</b>" in page


def test_a_large_video_stays_beside_its_page(results, blob, tmp_path, monkeypatch):
    monkeypatch.setattr("endofm_monai.apps.endofm.report.EMBEDDED", 100)
    page = write_report(shutil.copytree(results, tmp_path / "copy"), list_videos(blob)).read_text()
    assert 'src="detection/blob/overlay.mp4"' in page
    assert "keep them together" in page


def test_polyps_at_one_time_stand_one_above_the_other(tmp_path, results, blob):
    video = read_findings(results, TASKS, *list_videos(blob))
    rows = [(frame, 20 * place, 0.9) for frame in range(4) for place in range(3)] + [(20, 0, 0.9)]
    polyps = find_polyps(detections(tmp_path, rows), "v", np.arange(30) / 10)
    marks, levels = _polyp_marks(video, polyps)
    assert levels == 3
    tops = re.findall(r"left:([\d.]+)%;width:[\d.]+%;top:([\d.]+)%", marks)
    assert tops == [("0.0000", "0.00"), ("0.0000", "33.33"), ("0.0000", "66.67"), ("66.6667", "0.00")]


def test_classes_that_do_not_exclude_each_other_are_listed():
    video = VideoFindings("v", {"classification": "ok"}, fps=1.0, times=np.arange(2.0))
    for prediction, shown in (("normal", "normal"), (["bleeding", "polyp"], "bleeding, polyp"), ([], "")):
        video.classes = {"prediction": prediction}
        assert _row(Path("report.html"), Path("pages/v.html"), video)[-1] == shown


def test_very_many_windows_are_means_of_neighbors(results, blob):
    video = read_findings(results, TASKS, *list_videos(blob))
    ends = np.linspace(0, 3, 5001)
    windows = [
        {"begin_seconds": begin, "end_seconds": end, "probabilities": {"normal": 0.2, "abnormal": 0.8}}
        for begin, end in pairwise(ends)
    ]
    marks = _class_marks(video, windows)
    assert marks.count("<button") == MAX_MARKS
    assert marks.count("normal 0.20, abnormal 0.80") == MAX_MARKS


def test_a_page_is_of_the_rate_that_the_overlay_states(tmp_path):
    frames, path = np.zeros((2, 16, 32, 3), np.uint8), tmp_path / "overlay.mp4"
    write_video(path, frames, 1 / 3600, pixel_aspect=1.5)
    video = VideoFindings("v", {}, 32, 16, 1 / 3600, np.array([0, 3600.0]), overlays={"segmentation": path})
    assert f'data-fps="{1 / 3600!r}"' in _stage(tmp_path / "report.html", video)
    source = _pictures(path, [1], 224)[1].partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (48, 16)  # pixels are half as wide again as high


def test_windows_stand_where_their_frames_are_however_far_these_are_apart():
    times = np.array([0, 0.1, 0.2, 0.3, 1.3, 2.3, 3.3, 4.3])
    video = VideoFindings("v", {"classification": "ok"}, fps=10.0, times=times)
    windows = [
        {"begin_seconds": begin, "end_seconds": end, "probabilities": {"normal": 1.0}}
        for begin, end in ((0, 1.3), (1.3, 4.4))
    ]
    places = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", _class_marks(video, windows))
    assert places == [("0.0000", "50.0000"), ("50.0000", "50.0000")]
