# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from blob_bundles import (
    CLASSIFICATION,
    DETECTION,
    FRAMES,
    HEIGHT,
    SEGMENTATION,
    WIDTH,
    box,
    draw,
    make_bundles,
    make_studies,
    truth,
)
from blob_scene import encoded, infer, put_label
from monailabel.interfaces.utils.app import app_instance
from PIL import Image

from endofm_monai.apps.monai_label.lib.clips import join_frames_of_clips
from endofm_monai.apps.monai_label.lib.datastore import labeled_frames
from endofm_monai.apps.monai_label.lib.trainers import _split
from endofm_monai.utils import hold_folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    return make_studies(tmp_path_factory.mktemp("data#1") / "studies")  # MONAI reads # as :: in settings


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    return make_bundles(tmp_path_factory.mktemp("bundles#1"))


def train(client: Any, model: str, **params: Any) -> Any:
    request = {"max_epochs": 1, "val_split": 0.25, "device": "cpu", **params}
    return client.post(f"/train/{model}", params={"run_sync": True}, json=request)


def put_notes(client: Any, image: str, **notes: Any) -> None:
    assert put_label(client, image, json.dumps(notes).encode(), "notes.json").status_code == 200


def label_frames(client: Any, task: str) -> None:
    for index in range(FRAMES):
        image = f"case_{index:04d}"
        if task == "segmentation":
            assert put_label(client, image, encoded(truth(index))).status_code == 200
        else:
            label = "abnormal" if index < 6 else "normal"  # two clips, fewer than a batch
            put_notes(client, image, detections=[{"label": "polyp", "box": box(index)}], label=label)


@pytest.mark.parametrize("model", [SEGMENTATION, DETECTION, CLASSIFICATION])
def test_without_labels_there_is_a_message(client, model):
    answer = train(client, model)
    assert answer.status_code == 400
    assert (
        f"there is nothing to train with. It learns from {'masks' if model == SEGMENTATION else 'notes'}" in answer.text
    )


@pytest.mark.parametrize("model", [SEGMENTATION, DETECTION, CLASSIFICATION])
def test_next_answer_uses_the_new_weights(client, bundles, model):
    label_frames(client, model.rpartition("_")[2])
    stop = signal.getsignal(signal.SIGTERM)
    params = {"frame": 4} if model != SEGMENTATION else {}

    def answer() -> Any:
        content = infer(client, model, image="case" if params else "case_0004", **params).json()
        return content.get("detections") or content.get("prediction") or content["annotations"]

    first = answer()
    trained = bundles / model / "models" / "monai_label" / "model.pt"
    shared = (bundles / model / "models" / "model.pt").read_bytes()
    result = train(client, model)
    assert result.status_code == 200, result.text
    assert result.json()["labels"] + result.json()["validation_labels"] == FRAMES
    assert result.json()["epochs"] == result.json()["best_epoch"] == 1
    assert signal.getsignal(signal.SIGTERM) is stop
    app = app_instance()
    app._infers[model].score(app.datastore().get_image_uri("case_0004"))
    weights = torch.load(trained, weights_only=True)
    network = app._infers[model].predictor.network
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())

    torch.save({name: value * 0 for name, value in weights.items()}, trained)  # a network that knows nothing
    assert answer() != first
    trained.unlink()
    assert answer() == first
    assert (bundles / model / "models" / "model.pt").read_bytes() == shared


def test_requests_cannot_bring_code_into_a_configuration(client, tmp_path):
    label_frames(client, "segmentation")
    for key in ("max_epochs", "val_split", "num_workers", "device"):
        answer = train(client, SEGMENTATION, **{key: f"$open('{tmp_path}/{key}', 'w')"})
        assert answer.status_code == 400, answer.text
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_unknown_or_has_no_label_is_named(client):
    for index in range(FRAMES):
        put_notes(client, f"case_{index:04d}", label="abnormal")
    answer = train(client, CLASSIFICATION)
    assert (answer.status_code, "is of the class normal" in answer.text) == (400, True), answer.text
    put_notes(client, "case_0003", label="strange")
    answer = train(client, CLASSIFICATION)
    assert (answer.status_code, "'strange' is none of the classes normal, abnormal" in answer.text) == (400, True)


def test_a_bundle_that_cannot_be_written_to_is_named(client, bundles):
    label_frames(client, "segmentation")
    folder = bundles / SEGMENTATION / "models" / "monai_label"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file where the folder should be")
    answer = train(client, SEGMENTATION)
    folder.unlink()
    assert (answer.status_code, "could not write" in answer.text and "datalist.json" in answer.text) == (400, True)


def hold(folder: Path, held: Any) -> None:
    folder.mkdir(parents=True)
    release = hold_folder(folder, "training")
    held.send(True)
    held.recv()
    release()


def test_a_training_of_another_server_is_left_alone(client, bundles):
    label_frames(client, "segmentation")
    folder = bundles / SEGMENTATION / "models" / "monai_label" / "training"
    shutil.rmtree(folder.parent, ignore_errors=True)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(folder, there))
    process.start()
    here.recv()
    answer = train(client, SEGMENTATION)
    assert (answer.status_code, "another training is running there" in answer.text) == (400, True), answer.text
    assert [path.name for path in folder.iterdir()] == ["training.lock"]
    here.send(True)
    process.join()


def test_neighbors_become_clips(tmp_path):
    labels = {"normal": 0, "abnormal": 1}
    datalist = []
    for name, label in (("a_2.png", "normal"), ("a_1.jpg", "normal"), ("a_3.png", "abnormal"), ("a_5.png", "normal")):
        draw(0).save(tmp_path / name)
        notes = Path(tmp_path, name).with_suffix(".json")
        notes.write_text(json.dumps({"label": label}))
        datalist.append({"image": str(tmp_path / name), "label": str(notes)})
    clips = join_frames_of_clips(labeled_frames("classification", datalist, labels))
    assert [([Path(path).name for path in clip["image"]], clip["label"]) for clip in clips] == [
        (["a_1.jpg", "a_2.png"], 0),
        (["a_5.png"], 0),
        (["a_3.png"], 1),
    ]
    draw(0).save(tmp_path / "a_2.png", save_all=True, append_images=[draw(1)])  # an animation is a clip of its own
    clips = join_frames_of_clips(labeled_frames("classification", datalist, labels))
    assert [clip["image"] if clip["image"] == str(tmp_path / "a_2.png") else len(clip["image"]) for clip in clips] == [
        str(tmp_path / "a_2.png"),
        *(1, 1, 1),
    ]


def test_frames_of_another_size_than_their_neighbors_are_trained_on(client):
    for index, scale in enumerate((1, 1, 2, 2)):
        for name, picture in (("image", draw(index)), ("label", Image.fromarray(truth(index)))):
            content = encoded(picture.resize((WIDTH * scale, HEIGHT * scale)))
            files = {"file" if name == "image" else "label": ("a.png", content)}
            answer = client.put(f"/datastore/{name}", params={"image": f"scaled_{index}"}, files=files)
            assert answer.status_code == 200, answer.text
    answer = train(client, SEGMENTATION)
    for index in range(4):
        client.delete("/datastore/", params={"id": f"scaled_{index}"})
    assert answer.status_code == 200, answer.text


def test_a_video_without_boxes_is_none_of_the_frames_to_detect_in(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "notes.json").write_text(json.dumps({"detections": [], "label": "normal"}))
    labels = [{"image": str(tmp_path / name), "label": str(tmp_path / "notes.json")} for name in ("a.png", "b.mp4")]
    (frame,) = labeled_frames("detection", labels, {"polyp": 1})
    assert (frame["image"], frame["box"]) == (str(tmp_path / "a.png"), [])
    assert len(labeled_frames("classification", labels, {"normal": 0})) == 2


def test_frames_with_and_without_boxes_are_split_apart():
    frames = [{"image": f"{n}.png", "box": [[[1, 2, 3, 4]]] if n < 5 else []} for n in range(10)]
    training, validation = _split(frames, 0.2)
    assert [frame["image"] for frame in validation] == ["4.png", "9.png"]
    assert len(training) == 8
    assert _split(frames[4:], 0.2)[1] == []  # one with a box is for the training


def test_frames_with_and_without_foreground_are_split_apart(tmp_path):
    for name, index in (("polyp", 0), ("none", 100)):  # where the ellipse has left the frame
        Image.fromarray(truth(index)).save(tmp_path / f"{name}.png")
    masks = {True: str(tmp_path / "polyp.png"), False: str(tmp_path / "none.png")}
    frames = [{"image": f"{n}.png", "mask": masks[n < 5]} for n in range(10)]
    assert [frame["image"] for frame in _split(frames, 0.2)[1]] == ["4.png", "9.png"]
    frames = [{"image": f"{n}.png", "mask": masks[n == 9]} for n in range(10)]
    assert _split(frames, 0.2) == (frames[:7] + frames[9:] + frames[7:9], [])


def test_without_each_class_in_the_validation_all_is_for_training():
    frames = [{"image": f"{n}.png", "label": int(n > 7)} for n in range(10)]  # of the two of class 1 none is to spare
    assert _split(frames, 0.2) == (frames[:6] + frames[8:] + frames[6:8], [])
    assert [frame["image"] for frame in _split([*frames, {"image": "10.png", "label": 1}], 0.2)[1]] == [
        *("6.png", "7.png"),
        "10.png",
    ]
    frames = [{"image": f"{n}.png", "box": [[[1, 2, 3, 4]]] if n == 0 else []} for n in range(10)]
    assert _split(frames, 0.2) == (frames, [])
