# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from blob_bundles import CLASSIFICATION, DETECTION, FRAMES, HEIGHT, SEGMENTATION, WIDTH
from blob_scene import encoded, put_label
from monailabel.interfaces.utils.app import app_instance
from PIL import Image

from endofm_monai.utils import sha256

STRATEGY = f"uncertainty_{SEGMENTATION}"


def next_image(client: Any, strategy: str = STRATEGY, **params: Any) -> Any:
    return client.post(f"/activelearning/{strategy}", json=params)


def score(client: Any, method: str, **params: Any) -> Any:
    return client.post(f"/scoring/{method}", params={"run_sync": True}, json=params)


def test_scores_then_the_most_uncertain_image_of_a_part_without_label(client):
    refused = next_image(client)
    assert (refused.status_code, refused.json()["detail"]) == (
        400,
        f"None of {FRAMES + 2} images without label has a score by the weights in use: POST /scoring/{SEGMENTATION}, "
        "which also says what it cannot score.",
    )
    store = app_instance().datastore()

    result = score(client, SEGMENTATION).json()
    assert result["scored"] == FRAMES + 1
    assert list(result["failed"]) == ["case"]  # a video, of which no frame was named
    images = [image for image in store.list_images() if image != "case"]
    values = {image: store.get_image_info(image)["uncertainty"][SEGMENTATION][0] for image in images}
    assert all(0 < value < 1 for value in values.values())
    assert len(set(values.values())) > FRAMES // 2
    assert score(client, SEGMENTATION).json()["scored"] == 0  # by the same weights nothing is scored twice
    store.update_image_info("single", {"uncertainty": {}})
    assert store.list_images().index("case") < store.list_images().index("single")
    assert score(client, SEGMENTATION, max_samples=1).json()["scored"] == 1  # though the video fails each time

    most = max(values, key=values.__getitem__)
    answer = next_image(client).json()
    assert answer["id"] == most
    assert answer["path"] == store.get_image_uri(most)
    for image in ("case_0001", "case_0009", "single"):
        assert put_label(client, image, encoded(Image.new("L", (WIDTH, HEIGHT)))).status_code == 200
    # frames 0 to 7 and 8 to 10 have a label each, and so does the single image: the whole of parts is used up
    left = {image: value for image, value in values.items() if image not in ("case_0001", "case_0009", "single")}
    assert next_image(client).json()["id"] == max(left, key=left.__getitem__)
    of_parts_of_two = {image: value for image, value in left.items() if image not in ("case_0000", "case_0008")}
    assert next_image(client, window=2).json()["id"] == max(of_parts_of_two, key=of_parts_of_two.__getitem__)


@pytest.mark.parametrize("method", [DETECTION, CLASSIFICATION])
def test_each_task_has_its_uncertainty(client, method):
    result = score(client, method).json()
    assert result["scored"] > 5
    store = app_instance().datastore()
    for image in store.get_unlabeled_images():
        if image != "case" or method == CLASSIFICATION:
            assert 0 <= store.get_image_info(image)["uncertainty"][method][0] <= 1


def test_scores_of_former_weights_are_not_compared_with_those_of_others(client, bundles):
    store, weights = app_instance().datastore(), bundles / SEGMENTATION / "models" / "monai_label" / "model.pt"
    score(client, SEGMENTATION)
    weights.parent.mkdir()
    state = torch.load(bundles / SEGMENTATION / "models" / "model.pt", weights_only=True)
    torch.save({key: value * 0.9 for key, value in state.items()}, weights)  # as of a training
    refused = next_image(client)
    assert (refused.status_code, "has a score by the weights in use" in refused.text) == (400, True)
    assert score(client, SEGMENTATION, max_samples=1).json()["scored"] == 1  # and then it is stopped, say
    by = {image: store.get_image_info(image).get("uncertainty", {}).get(SEGMENTATION) for image in store.list_images()}
    assert [next_image(client).json()["id"]] == [
        image for image, note in by.items() if note and note[1] == sha256([weights])
    ]
    shutil.rmtree(weights.parent)
    assert next_image(client).status_code == 200


def test_chance_and_order_give_images_without_label(client):
    unlabeled = app_instance().datastore().get_unlabeled_images()
    assert next_image(client, "random").json()["id"] in unlabeled
    assert next_image(client, "first").json()["id"] in unlabeled


def test_unknown_names_are_answered(client):
    answer = next_image(client, "best")
    assert (answer.status_code, "no strategy 'best'; there are random, first" in answer.text) == (404, True)
    assert score(client, "dice").status_code == 404
    assert client.post("/train/dice?run_sync=true", json={}).status_code == 404


def test_an_image_that_is_removed_meanwhile_does_not_end_the_scoring(client, studies, monkeypatch):
    with (studies / "single.png").open("rb") as file:
        assert client.put("/datastore/image?image=gone", files={"file": ("a.png", file)}).status_code == 200
    app = app_instance()
    model, scored = app._infers[CLASSIFICATION], []

    def remove(image: str) -> float:
        scored.append(image)
        app.datastore().remove_image("gone") if "gone" in image else None
        return 0.5

    monkeypatch.setattr(model, "score", remove)
    monkeypatch.setattr(type(model.bundle), "weights", studies / "single.png")  # others, so that all are scored
    result = score(client, CLASSIFICATION).json()
    assert result["failed"] == {"gone": "There is no image 'gone'."}
    assert result["scored"] == len(scored) - 1
