# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What a client sends is checked before anything is touched or stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blob_bundles import CLASSIFICATION, DETECTION, SEGMENTATION
from blob_scene import encoded, infer
from PIL import Image

from endofm_monai.utils import sha256


def put_info(client: Any, text: str, image: str = "case_0001") -> Any:
    return client.put("/datastore/image/info", params={"image": image}, data={"info": text})


def refused(answer: Any, message: str, status: int = 400) -> bool:
    detail = answer.json()["detail"]
    return answer.status_code == status and message in detail and "\n" not in detail


@pytest.mark.parametrize("model", [SEGMENTATION, DETECTION, CLASSIFICATION])
def test_a_refused_device_does_not_touch_the_model(client, model):
    before = infer(client, model, image="case_0001").json()
    for device in ("meta", "xpu", "no device", 5, ["meta"]):
        assert refused(
            infer(client, model, image="case_0001", device=device), "`device` must be one to compute on, here cpu"
        )
    after = infer(client, model, image="case_0001", device="cpu").json()
    for answer in (before, after):
        answer.pop("latencies")
    assert after == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "`params`: must be a JSON object"),
        ("[1]", "`params`: Input should be a valid dictionary"),
        ("null", "`params`: Input should be a valid dictionary"),
        ("[" * 100_000, "`params`: must be a JSON object"),
        ('{"frame": NaN}', "`params`: must be a JSON object, without NaN"),
        ('{"frame": 2.5}', "`frame`: Input should be a valid integer"),
        ('{"context": "perhaps"}', "`context`: Input should be a valid boolean"),
        ('{"model": [1]}', "`model`: Input should be a valid string"),
        ('{"image": 5}', "`image`: Input should be a valid string"),
        ('{"score_threshold": "high"}', "`score_threshold`: Input should be a valid number"),
        ('{"score_threshold": 50}', "`score_threshold`: Input should be less than or equal to 1"),
        ('{"output": "pdf"}', "`output`: Input should be 'mask'"),
        ('{"bundle_path": "/tmp"}', "`bundle_path`: Input should be None"),
    ],
)
def test_parameters_of_a_question_are_checked(client, text, message):
    answer = client.post(f"/infer/{DETECTION}", params={"image": "case_0001"}, data={"params": text})
    assert refused(answer, message), answer.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"num_workers": 100000}', "`num_workers`: Input should be less than or equal to"),
        ('{"num_workers": -1}', "`num_workers`"),
        ('{"max_epochs": 0}', "`max_epochs`"),
        ('{"max_epochs": 100000}', "`max_epochs`"),
        ('{"batch_size": 100000}', "`batch_size`"),
        ('{"val_split": NaN}', "`val_split`: Input should be a finite number"),
        ('{"val_split": 1}', "`val_split`"),
        ('{"pretrained": "perhaps"}', "`pretrained`"),
        ('{"device": "meta"}', "`device`"),
        ('{"gpus": 5}', "`gpus`"),
        ('{"bundle_path": "/tmp"}', "`bundle_path`"),
        ("[1]", "`params`"),
    ],
)
def test_a_training_is_refused_before_it_is_started(client, content, message):
    headers = {"content-type": "application/json"}
    answer = client.post(f"/train/{SEGMENTATION}", content=content, headers=headers)
    assert refused(answer, message), answer.text
    assert client.get("/train/").status_code == 404  # none was ever started


def test_other_requests_are_checked_likewise(client):
    assert refused(client.post(f"/scoring/{DETECTION}", json={"max_samples": "all"}), "`max_samples`")
    assert refused(client.post(f"/activelearning/uncertainty_{DETECTION}", json={"window": 0}), "`window`")
    assert refused(client.post("/activelearning/random", json={"client_id": 5}), "`client_id`")
    assert refused(client.post(f"/batch/infer/{DETECTION}", json={"max_workers": 100_000}), "`max_workers`")
    answer = client.post(f"/batch/infer/{DETECTION}", json={"score_threshold": 5})
    assert refused(answer, "`score_threshold`")
    slide = {"wsi": '{"params": {"device": "meta"}}'}
    assert refused(
        client.post(f"/infer/wsi_v2/{DETECTION}?image=case_0001", data=slide), "`device` must be one to compute on"
    )


@pytest.mark.parametrize("content", [b"hello", b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/datastore/"), ("DELETE", "/datastore/image?id=a"), ("POST", "/activelearning/random")],
)
def test_a_body_that_is_no_json_is_answered(client, method, path, content):
    assert refused(client.request(method, path, content=content), "`params`: must be a JSON object, but ")


def test_what_is_none_of_a_request_is_passed_over(client):
    assert infer(client, DETECTION, image="case_0001", images=None, max_workers=100_000).status_code == 200
    scored = client.post(f"/scoring/{DETECTION}?run_sync=true", json={"max_samples": 1, "window": None})
    assert (scored.status_code, scored.json()["scored"]) == (200, 1)
    assert client.post("/activelearning/random", json={"max_samples": "all"}).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        '{"uncertainty": "high"}',
        '{"uncertainty": {"model": ["high", "1"]}}',
        '{"uncertainty": {"model": [NaN, "1"]}}',
        '{"strategy": 5}',
        '{"strategy": {"random": {"ts": "now"}}}',
        '{"strategy": {"random": {"ts": 99999999999999}}}',
        '{"note": NaN}',
        '{"note": [1e999]}',
        '{"note": "\\ud800"}',
        '{"note": ' + "[" * 100 + "]" * 100 + "}",
        "[1]",
    ],
)
def test_what_is_noted_of_an_image_cannot_break_the_server_for_all(client, text):
    answer = put_info(client, text)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["detail"].splitlines()) == 1
    assert client.get("/datastore/").status_code == client.get("/datastore/?output=all").status_code == 200
    assert client.post(f"/scoring/{CLASSIFICATION}?run_sync=true", json={"max_samples": 1}).json()["failed"] == {}
    assert client.post("/activelearning/random", json={}).status_code == 200


@pytest.mark.parametrize("asked", [{"output": "image"}, {"output": "dicom_seg"}, {"session_id": "any"}])
def test_what_the_server_cannot_send_is_said(client, asked):
    answer = client.post(f"/infer/{DETECTION}", params={"image": "case_0001", **asked})
    assert refused(answer, f"`{next(iter(asked))}`: ")


def test_notes_with_numbers_are_kept(client, bundles):
    score = [0.5, sha256([bundles / DETECTION / "models" / "model.pt"])]
    note = {"uncertainty": {DETECTION: score}, "note": {"doctor": ["a", 1]}}
    assert put_info(client, json.dumps(note)).status_code == 200
    kept = client.get("/datastore/image/info?image=case_0001").json()
    assert (kept["uncertainty"][DETECTION], kept["note"]) == (score, note["note"])
    answer = client.post(f"/activelearning/uncertainty_{DETECTION}", json={}).json()
    assert (answer["id"], answer["weight"]) == ("case_0001", 0.5)


def test_notes_that_come_with_an_image_or_label_are_checked_too(client):
    files = {"file": ("a.png", encoded(Image.new("RGB", (8, 8))))}
    answer = client.put("/datastore/image?image=other", files=files, data={"params": '{"uncertainty": 5}'})
    assert refused(answer, "`uncertainty`")
    label = {"label": ("a.json", b'{"label": "normal"}')}
    answer = client.put("/datastore/label?image=case_0001", files=label, data={"params": "[]"})
    assert refused(answer, "`params`")
    assert client.get("/datastore/").json()["completed"] == 0
    answer = client.put("/datastore/label/info?label=case_0001&tag=final", data={"info": "{}"})
    assert refused(answer, "no label 'final' of 'case_0001'", 404)
    assert refused(client.delete("/datastore/label?id=case_0001&tag=final"), "no label", 404)


def test_weights_cannot_be_removed_or_replaced(client, bundles):
    weights = bundles / SEGMENTATION / "models" / "model.pt"
    content = weights.read_bytes()
    assert client.delete(f"/model/{SEGMENTATION}").status_code == 404
    for name in (SEGMENTATION, "other"):
        answer = client.put(f"/model/{name}", files={"file": ("model.pt", b"other weights")})
        assert refused(answer, "Weights come with a bundle", 405)
    assert client.get(f"/model/info/{SEGMENTATION}").status_code == 404
    assert weights.read_bytes() == content
    assert [path.name for path in weights.parent.iterdir()] == ["model.pt"]
    assert infer(client, SEGMENTATION, image="case_0001").status_code == 200
