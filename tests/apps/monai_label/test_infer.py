# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from blob_bundles import CLASSIFICATION, DETECTION, FRAMES, HEIGHT, SEGMENTATION, STEP, WIDTH, box, draw, truth
from blob_scene import encoded, infer, mask, overlap, put_label
from monai.bundle import ConfigWorkflow
from monailabel.interfaces.utils.app import app_instance
from PIL import Image

from endofm_monai.apps.monai_label.lib.clips import join_frames_of_clips
from endofm_monai.apps.monai_label.lib.datastore import check_label, labeled_frames
from endofm_monai.apps.monai_label.lib.infers import write_mask
from endofm_monai.apps.monai_label.lib.requests import InferRequest
from endofm_monai.data import open_clip
from endofm_monai.formats.masks import draw_polygon
from endofm_monai.inferers import load_predictor
from tests.support.dicom import write_dicom


def test_info_names_three_models_and_what_they_tell(client):
    info = client.get("/info/").json()
    assert {name: (model["type"], model["dimension"]) for name, model in info["models"].items()} == {
        SEGMENTATION: ("segmentation", 2),
        DETECTION: ("detection", 2),
        CLASSIFICATION: ("classification", 2),
    }
    assert info["models"][CLASSIFICATION]["labels"] == {"normal": 0, "abnormal": 1}
    assert info["models"][SEGMENTATION]["labels"] == info["models"][DETECTION]["labels"] == {"polyp": 1}
    assert set(info["trainers"]) == set(info["scoring"]) == set(info["models"])
    assert {"random", "first", f"uncertainty_{DETECTION}"} <= set(info["strategies"])
    assert info["datastore"]["total"] == FRAMES + 2


@pytest.mark.parametrize("index", [4, 5])  # PNG, JPEG
def test_mask_lies_on_the_ellipse_and_knows_the_next_frame(client, index):
    found = mask(infer(client, SEGMENTATION, "image", f"case_{index:04d}"))
    assert set(np.unique(found)) == {0, 1}
    assert overlap(found > 0, truth(index) | truth(index + 1)) > 0.9
    alone = mask(infer(client, SEGMENTATION, "image", f"case_{index:04d}", context=False))
    assert overlap(alone > 0, truth(index)) > 0.9


def test_mask_of_a_video_frame_an_upload_and_an_image_alone(client, studies):
    assert overlap(mask(infer(client, SEGMENTATION, "image", "case", frame=6)) > 0, truth(6) | truth(7)) > 0.85
    upload = infer(client, SEGMENTATION, "image", file=("frame_0003.png", encoded(draw(3)), "image/png"))
    assert overlap(mask(upload) > 0, truth(3)) > 0.9
    with (studies / "case.mp4").open("rb") as video:
        upload = infer(client, SEGMENTATION, "image", file=("other.mp4", video, "video/mp4"), frame=2)
    assert overlap(mask(upload) > 0, truth(2) | truth(3)) > 0.85
    assert overlap(mask(infer(client, SEGMENTATION, "image", "single")) > 0, truth(0)) > 0.9


def test_a_still_as_dicom_is_an_image_to_answer_for_and_to_learn_from(client, tmp_path):
    colors = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "NumberOfFrames": None}
    still = write_dicom(tmp_path / "still.dcm", draw(3).tobytes(), Rows=HEIGHT, Columns=WIDTH, **colors)
    for name in ("still.dcm", "IM000001", "1.2.840.113.7", "still.ima"):
        upload = infer(client, SEGMENTATION, "image", file=(name, still.read_bytes(), "application/dicom"))
        assert overlap(mask(upload) > 0, truth(3)) > 0.9
    still = still.rename(tmp_path / "1.2.840.113.7")
    (tmp_path / "mask.png").write_bytes(encoded(truth(3)))
    (tmp_path / "notes.json").write_text(json.dumps({"detections": [{"label": "polyp", "box": [1, 2, 30, 40]}]}))
    for task, name in (("segmentation", "mask.png"), ("detection", "notes.json")):
        check_label(tmp_path / name, str(still))
        labeled = [{"image": str(still), "label": str(tmp_path / name)}]
        (clip,) = join_frames_of_clips(labeled_frames(task, labeled, {"polyp": 1}))
        with open_clip(clip["image"]) as reader:
            np.testing.assert_array_equal(reader.read([0])[:, 0].permute(1, 2, 0), draw(3))
        assert {len(values) for values in clip.values()} == {1}


def test_mask_equals_that_of_the_bundle(client, studies, bundles, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for path in studies.glob("case_*"):
        shutil.copy(path, frames)
    bundle = bundles / SEGMENTATION
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(frames),
        output_dir=str(tmp_path / "eval"),
        formats=["png"],
    )
    workflow.initialize()
    workflow.run()
    written = sorted((tmp_path / "eval").rglob("*.png"))
    assert len(written) == FRAMES
    for path in written:
        found = mask(infer(client, SEGMENTATION, "image", path.stem))
        np.testing.assert_array_equal(found > 0, np.asarray(Image.open(path)) > 0)


@pytest.mark.parametrize("model", [SEGMENTATION, DETECTION, CLASSIFICATION])
@pytest.mark.parametrize("video", [True, False])
def test_answers_are_those_of_the_predictor_for_the_whole_clip(client, studies, bundles, model, video):
    images = sorted(str(path) for path in studies.glob("case_*"))
    answers = [answer for _, answer in load_predictor(bundles / model)(studies / "case.mp4" if video else images)]
    assert len(answers) == FRAMES
    for index in (0, 1, 5, FRAMES - 1):
        place = {"image": "case", "frame": index} if video else {"image": f"case_{index:04d}"}
        answer = answers[index]
        if model == SEGMENTATION:
            found = mask(infer(client, model, "image", **place))
            np.testing.assert_array_equal(found, answer["mask"][0])
        elif model == DETECTION:
            found = infer(client, model, score_threshold=0, **place).json()["detections"]
            np.testing.assert_allclose([item["score"] for item in found], answer["label_scores"], atol=1e-4)
            np.testing.assert_allclose([item["box"] for item in found], answer["box"].view(-1, 4), atol=0.01)
        else:
            found = [item["score"] for item in infer(client, model, **place).json()["prediction"]]
            np.testing.assert_allclose(found, answer["probabilities"], atol=1e-4)


def test_where_nothing_is_red_mask_polygons_and_boxes_are_empty(client):
    gray = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    found = mask(infer(client, SEGMENTATION, "image", file=("gray.png", encoded(gray), "image/png")))
    np.testing.assert_array_equal(found, np.zeros((HEIGHT, WIDTH)))
    answer = infer(client, SEGMENTATION, file=("gray.png", encoded(gray), "image/png")).json()
    assert answer["annotations"] == [{"annotation": {"elements": []}}]
    answer = infer(client, DETECTION, file=("gray.png", encoded(gray), "image/png")).json()
    assert answer["detections"] == answer["annotations"][0]["annotation"]["elements"] == []


def test_polygon_has_the_corners_of_the_mask_and_goes_to_qupath(client):
    answer = infer(client, SEGMENTATION, image="case_0004", context=False).json()
    (element,) = answer["annotations"][0]["annotation"]["elements"]
    points = np.array([point for contour in element["contours"] for point in contour])
    assert element["label"] == "polyp"
    np.testing.assert_allclose([*points.min(0), *points.max(0)], box(4), atol=3)
    asap = infer(client, SEGMENTATION, "image", "case_0004", output="asap")
    assert b"<Coordinate " in asap.content


def test_polygons_are_the_mask_also_at_the_edge_of_the_frame():
    disk = np.hypot(*np.mgrid[-10 : HEIGHT - 10, -8 : WIDTH - 8]) < 30
    disk[-20:, -9:] = True
    answer = {"mask": torch.from_numpy(disk[None].astype(np.uint8))}
    _, result = write_mask(SimpleNamespace(labels={"polyp": 1}), answer, InferRequest(image="case"))
    (element,) = result["annotations"][0]["annotation"]["elements"]
    drawn = [draw_polygon(np.ravel(points), HEIGHT, WIDTH) for points in element["contours"]]
    assert len(drawn) == 2
    assert overlap(np.any(drawn, axis=0), disk) > 0.99


@pytest.mark.parametrize(("image", "params"), [("case_0004", {}), ("case_0005", {}), ("case", {"frame": 5})])
def test_box_lies_about_the_ellipse(client, image, params):
    index = params.get("frame", int(image[-1]) if image[-1].isdigit() else 0)
    answer = infer(client, DETECTION, image=image, **params).json()
    best = answer["detections"][0]
    assert best["label"] == "polyp"
    assert best["score"] > 0.9
    np.testing.assert_allclose(best["box"], box(index), atol=3)
    (x1, y1), (x2, y2) = (
        answer["annotations"][0]["annotation"]["elements"][0]["contours"][0][place] for place in (0, 2)
    )
    assert [x1, y1, x2, y2] == best["box"]
    assert infer(client, DETECTION, image=image, score_threshold=1, **params).json()["detections"] == []


def test_probabilities_of_a_frame_and_of_a_whole_video(client, studies):
    gray = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    for image, params, expected in (("case_0004", {}, 1), ("case", {"frame": 3}, 1), ("case", {}, 1)):
        answer = infer(client, CLASSIFICATION, image=image, **params).json()
        scores = {item["label"]: item["score"] for item in answer["prediction"]}
        assert sum(scores.values()) == pytest.approx(1)
        assert scores["abnormal"] == pytest.approx(expected, abs=0.1)
    answer = infer(client, CLASSIFICATION, file=("gray.png", encoded(gray), "image/png")).json()
    assert answer["prediction"][0] == pytest.approx({"idx": 0, "label": "normal", "score": 1}, abs=0.1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_goes_on_after_what_has_no_answer(client, workers):
    answer = client.post(f"/batch/infer/{DETECTION}?run_sync=true", json={"device": "cpu", "max_workers": workers})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert "is a video; say which `frame`" in found.pop("case")["error"]
    assert len(found) == FRAMES + 1
    assert all(each["params"]["detections"][0]["score"] > 0.9 for each in found.values())
    answer = client.post("/batch/infer/other?run_sync=true", json={})
    assert (answer.status_code, "There is no model 'other'" in answer.text) == (404, True)


def test_four_threads_at_once_get_the_answers_of_one(client):
    app = app_instance()
    requests = [
        {"model": model, "image": f"case_{index:04d}"} for index in (0, 4, 9) for model in (SEGMENTATION, DETECTION)
    ]

    def ask(request: dict[str, Any]) -> Any:
        answer = app.infer(dict(request))
        if answer["file"] is None:
            return answer["params"]["detections"]
        with Image.open(answer["file"]) as image:
            pixels = np.asarray(image).tolist()
        Path(answer["file"]).unlink()
        return pixels

    alone = [ask(request) for request in requests]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, requests * 4)) == alone * 4


def test_stock_app_reads_the_segmentation_bundle(bundles, studies):
    """MONAI Label's own task for bundles, which its sample app uses, gives the mask of a frame alone."""
    from monailabel.tasks.infer.bundle import BundleInferTask

    task = BundleInferTask(str(bundles / SEGMENTATION), {})
    file, result = task({"image": str(studies / "case_0005.jpg"), "device": "cpu"})
    found = np.asarray(Image.open(file))
    Path(file).unlink()
    assert file.endswith(".png")
    assert overlap(found > 0, truth(5)) > 0.9
    assert result["label_names"] == {"polyp": 1}


@pytest.mark.parametrize(
    ("model", "image", "params", "status", "message"),
    [
        (SEGMENTATION, "unknown", {}, 404, "no image 'unknown'"),
        (SEGMENTATION, "/etc/hostname", {}, 404, "no image '/etc/hostname'"),
        (SEGMENTATION, "../bundles/endofm_polyp_segmentation/configs/train.json", {}, 404, "no image"),
        (SEGMENTATION, "case", {}, 400, "say which `frame`, from 0 to 10"),
        (DETECTION, "case", {"frame": FRAMES}, 400, "has no frame 11; its 11 frames count from 0"),
        (SEGMENTATION, "case", {"frame": -1}, 400, "has no frame -1"),
        (SEGMENTATION, "case", {"frame": "last"}, 400, "`frame`: Input should be a valid integer"),
        (SEGMENTATION, "case_0001", {"frame": 3}, 400, "single image"),
        (SEGMENTATION, "case_0001", {"device": "$__import__('os').abort()"}, 400, "`device`"),
        ("endofm_pretraining", "case_0001", {}, 404, "no model 'endofm_pretraining'; there are endofm_polyp_"),
    ],
)
def test_wrong_questions_get_a_message(client, model, image, params, status, message):
    answer = infer(client, model, image=image, **params)
    assert (answer.status_code, message in answer.json()["detail"]) == (status, True), answer.text


def test_parameters_cannot_name_a_file_either(client):
    params = {"params": json.dumps({"image": "/etc/hostname"})}
    answer = client.post(f"/infer/{SEGMENTATION}?image=case_0001", data=params)
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no image '/etc/hostname'.")


@pytest.mark.parametrize("name", ["broken.png", "broken.jpg", "broken.mp4", "notes.txt"])
def test_corrupt_upload_gets_a_message(client, name):
    answer = infer(client, SEGMENTATION, file=(name, b"no image", "image/png"), frame=0)
    assert answer.status_code == 400, answer.text
    assert "not" in answer.json()["detail"]


def test_neighbors_of_another_size_are_left_out(client, studies):
    strange = studies / "case_0011.png"
    draw(0).resize((WIDTH + STEP, HEIGHT)).save(strange)
    beside = mask(infer(client, SEGMENTATION, "image", "case_0010"))
    strange.unlink()
    assert (beside == mask(infer(client, SEGMENTATION, "image", "case_0010"))).all()


@pytest.mark.parametrize("kind", ["tif", "gif"])
def test_an_image_of_several_frames_is_a_video(client, tmp_path, kind):
    first, *others = map(draw, range(4, 8))
    first.save(tmp_path / f"stack_0001.{kind}", save_all=True, append_images=others)
    first.save(tmp_path / "stack_0002.png")  # which is not its neighbor
    for path in tmp_path.iterdir():
        answer = client.put("/datastore/image", files={"file": (path.name, path.read_bytes())})
        assert answer.json() == {"image": path.stem}
    refused = infer(client, SEGMENTATION, image="stack_0001")
    assert (refused.status_code, "say which `frame`, from 0 to 3" in refused.text) == (400, True)
    assert overlap(mask(infer(client, SEGMENTATION, "image", "stack_0001", frame=2)) > 0, truth(6) | truth(7)) > 0.85
    assert overlap(mask(infer(client, SEGMENTATION, "image", "stack_0002")) > 0, truth(4)) > 0.9
    label = put_label(client, "stack_0001", encoded(truth(4)))
    assert (label.status_code, f"stack_0001.{kind}: is a video; masks are for its frames" in label.text) == (400, True)
    for name in ("stack_0001", "stack_0002"):
        client.delete("/datastore/image", params={"id": name})
