# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The same trained weights give the same answer at every door, and a file is opened and decoded once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from blob_scene import clear_cache, infer, mask, start_app
from bundles import BundleUnderTest
from monai.bundle import ConfigParser
from PIL import Image
from scipy.ndimage import binary_fill_holes
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from trial import TRIAL_INFERENCE, TRIAL_TRAINING

from endofm_monai.apps.cvat.__main__ import annotate
from endofm_monai.apps.sharing.zoo_tests import make_trial_clips
from endofm_monai.data import open_clip
from endofm_monai.data.readers.video import VideoReader
from endofm_monai.formats import read_cvat_xml, write_video
from endofm_monai.formats.masks import draw_polygon
from endofm_monai.inferers import load_predictor

FRAMES, HEIGHT, WIDTH, THRESHOLD = 21, 48, 64, 0.2
EPOCHS = {"segmentation": 6, "detection": 6, "classification": 2}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A bright square that moves over dark noise, 30 frames a second."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 60, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[12:30, 8 + index : 30 + index] += 150
    path = tmp_path_factory.mktemp("studies") / "video.mp4"
    write_video(path, frames, 30.0)
    return path


@pytest.fixture(scope="module", params=EPOCHS)
def bundle(request, tmp_path_factory) -> Path:
    """A bundle that was trained by its ``train.json``."""
    folder = tmp_path_factory.mktemp("bundles") / f"endofm_polyp_{request.param}"
    source = BundleUnderTest(folder.name, TRIAL_INFERENCE[folder.name], TRIAL_TRAINING[folder.name])
    data = make_trial_clips(tmp_path_factory.mktemp("clips")).parent
    shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("eval", "models"))
    settings = {"learning_rate": 3e-3, "val_interval": EPOCHS[request.param]}
    source.train(data, folder, epochs=EPOCHS[request.param], **settings)
    parser = ConfigParser.load_config_file(folder / "configs" / "inference.json")
    parser = ConfigParser(parser)
    parser.update(source.network | ({"threshold": THRESHOLD} if request.param == "detection" else {}))
    (folder / "configs" / "inference.json").write_text(json.dumps(parser.get()))
    return folder


@pytest.fixture(scope="module")
def answers(bundle, video) -> list[dict[str, Any]]:
    """What the predictor says of each frame of the file."""
    found = [answer for _, answer in load_predictor(bundle)(video)]
    assert len(found) == FRAMES
    return found


def run_inference(bundle: Path, video: Path, output: Path) -> None:
    under_test = BundleUnderTest(bundle.name)
    under_test.folder = bundle
    under_test.infer(video.parent, bundle / "models" / "model.pt", output)


def assert_same_detections(found: Any, answer: dict[str, Any], atol: float) -> None:
    """Compare rows of a score and a box, the best first; which of two comes first that are equal is chance."""
    found, expected = np.reshape(found, (-1, 5)), np.column_stack([answer["label_scores"], answer["box"]])
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=1e-4)
    nearest = linear_sum_assignment(cdist(expected, found))[1]
    np.testing.assert_allclose(found[nearest], expected, atol=atol, rtol=1e-4)


def test_answers_tell_something(bundle, answers):
    if "mask" in answers[0]:
        assert 0.05 < np.mean([answer["mask"].float().mean() for answer in answers]) < 0.95
    elif "box" in answers[0]:
        assert sum(len(answer["box"]) for answer in answers) > 0
    else:
        assert np.ptp([answer["probabilities"][0] for answer in answers]) > 1e-3


@pytest.mark.parametrize("frames_a_push", [1, 16])
def test_a_live_stream(bundle, video, answers, frames_a_push):
    predictor = load_predictor(bundle)
    with open_clip(video) as reader:
        predictor.begin(reader.probe())
        blocks = reader.read(range(FRAMES)).split(frames_a_push, dim=1)
    found = [pair for block in blocks for pair in predictor.push(block)] + predictor.flush()
    for (_, answer), expected in zip(found, answers, strict=True):
        if "box" in expected:
            rows = np.column_stack([answer["label_scores"], answer["box"]])
            assert_same_detections(rows, expected, atol=1e-4)
            torch.testing.assert_close(answer["label"], expected["label"])
            continue
        for key, value in expected.items():
            torch.testing.assert_close(answer[key], value, atol=1e-4, rtol=1e-4)


def test_inference_json_opens_and_decodes_a_file_once(bundle, video, answers, tmp_path, monkeypatch):
    opened: Counter[str] = Counter()
    decoded: Counter[int] = Counter()
    open_, decode = av.open, VideoReader._decode

    def count_open(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened[str(file)] += args[:1] != ("w",) and kwargs.get("mode", "r") == "r"
        return open_(file, *args, **kwargs)

    def count_decode(self: VideoReader, wanted: list[int]) -> Any:
        for index, frame in decode(self, wanted):
            decoded[index] += 1
            yield index, frame

    monkeypatch.setattr(av, "open", count_open)
    monkeypatch.setattr(VideoReader, "_decode", count_decode)
    run_inference(bundle, video, tmp_path)
    assert opened[str(video)] == 1
    assert set(decoded.values()) == {1}
    task = bundle.name.rpartition("_")[2]
    if task != "classification":
        assert sorted(decoded) == list(range(FRAMES))
    if task == "segmentation":
        files = sorted((tmp_path / "video" / "masks").iterdir())
        for path, answer in zip(files, answers, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(path)) > 0, answer["mask"][0] > 0)
    elif task == "detection":
        rows = json.loads((tmp_path / "video" / "detections.json").read_text())
        x, y, width, height = np.transpose([row["bbox"] for row in rows])
        found = np.column_stack([[row["score"] for row in rows], x, y, x + width, y + height])
        frames = np.cumsum([len(answer["box"]) for answer in answers])
        assert frames[-1] == len(rows)
        for of_frame, answer in zip(np.split(found, frames[:-1]), answers, strict=True):
            assert_same_detections(of_frame, answer, atol=0.01)
    else:
        (result,) = (json.loads(path.read_text()) for path in (tmp_path / "videos").glob("*.json"))
        for index, answer in enumerate(answers):
            second = (index + 0.5) / 30
            holding = [w for w in result["windows"] if w["begin_seconds"] <= second <= w["end_seconds"]]
            mean = np.mean([list(window["probabilities"].values()) for window in holding], axis=0)
            np.testing.assert_allclose(mean, answer["probabilities"], atol=1e-4)


def test_cvat(bundle, video, answers, tmp_path):
    annotate(str(video), str(bundle), str(tmp_path / "a.xml"), max_gap=0, tolerance=0.0, min_area=1)
    task = read_cvat_xml(tmp_path / "a.xml")
    label = None
    for index, answer in enumerate(answers):
        drawn = [shape for track in task.tracks if (shape := track.visible(FRAMES).get(index))]
        if "mask" in answer:
            polygons = [draw_polygon(shape.points, HEIGHT, WIDTH) for shape in drawn]
            found = np.any([*polygons, np.zeros((HEIGHT, WIDTH), bool)], axis=0)
            np.testing.assert_array_equal(found, binary_fill_holes(answer["mask"][0].numpy()))
        elif "box" in answer:
            boxes = answer["box"][answer["label_scores"] >= THRESHOLD]
            found = sorted(shape.points for shape in drawn)
            expected = sorted(
                boxes.tolist(), key=lambda box: [round(value, 2) for value in box]
            )  # as the file has them
            assert found == [pytest.approx(box, abs=0.01) for box in expected]
        else:
            label = task.tags[index][0].label if index in task.tags else label
            assert label == ["normal", "abnormal"][int(answer["probabilities"].argmax())]


def test_monai_label(bundle, video, answers):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        client = start_app(video.parent, bundles_dir=str(bundle.parent))
        for index, answer in enumerate(answers):
            place = {"image": "video", "frame": index}
            if "mask" in answer:
                np.testing.assert_array_equal(mask(infer(client, bundle.name, "image", **place)), answer["mask"][0])
            elif "box" in answer:
                found = infer(client, bundle.name, score_threshold=0, **place).json()["detections"]
                assert_same_detections([[item["score"], *item["box"]] for item in found], answer, atol=0.01)
            else:
                found = [item["score"] for item in infer(client, bundle.name, **place).json()["prediction"]]
                np.testing.assert_allclose(found, answer["probabilities"], atol=1e-4)
    clear_cache()
