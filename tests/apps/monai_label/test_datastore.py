# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blob_bundles import FRAMES, HEIGHT, WIDTH, draw, truth
from PIL import Image

from endofm_monai.apps.monai_label.lib.datastore import CheckedDatastore


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind)
    return file.getvalue()


def notes(**content: Any) -> bytes:
    return json.dumps(content).encode()


def put_label(client: Any, image: str, content: bytes, name: str = "label.png", tag: str = "final") -> Any:
    return client.put("/datastore/label", params={"image": image, "tag": tag}, files={"label": (name, content)})


MASK = truth(0).astype(np.uint8)


def test_image_and_labels_come_back_as_they_were(client, studies):
    frame = encoded(draw(20))
    answer = client.put("/datastore/image", params={"image": "new_0001"}, files={"file": ("any.png", frame)})
    assert answer.json() == {"image": "new_0001"}
    assert client.get("/datastore/image", params={"image": "new_0001"}).content == frame
    for name, content in (
        ("label.png", encoded(MASK * 255)),
        ("label.json", notes(label="abnormal", detections=[{"label": "polyp", "box": [1, 2, 30, 40.5]}])),
    ):
        assert put_label(client, "new_0001", content, name).status_code == 200
        back = client.get("/datastore/label", params={"label": "new_0001", "tag": "final"})
        assert back.content == content
    assert client.get("/datastore/").json() == {
        "total": FRAMES + 3,
        "completed": 1,
        "label_tags": {"final": 1},
    }
    client.delete("/datastore/image", params={"id": "new_0001"})
    assert not (studies / "new_0001.png").exists()


@pytest.mark.parametrize(
    ("image", "content", "name", "message"),
    [
        ("case_0001", encoded(MASK.T), "a.png", "72x96"),
        ("case_0001", encoded(MASK[:, :-1]), "a.png", "72x95"),
        ("case_0001", encoded(MASK * 3), "a.png", "but holds 0, 3"),
        ("case_0001", b"no image", "a.png", "not a readable mask"),
        ("case_0001", encoded(MASK * 255, "JPEG"), "a.jpg", "must be .png (a mask) or .json"),
        ("case", encoded(MASK), "a.png", "is a video"),
        ("case_0001", b"{", "a.json", "not readable JSON"),
        ("case_0001", notes(polyps=1), "a.json", "`detections` or `label`"),
        ("case_0001", notes(label=1), "a.json", "the name of a class"),
        ("case_0001", notes(detections=[{"label": "polyp", "box": [1, 2, 3]}]), "a.json", "x1, y1, x2, y2"),
        (
            "case_0001",
            notes(detections=[{"label": "polyp", "box": [1, 2, WIDTH + 1, 4]}]),
            "a.json",
            f"not inside the image of {WIDTH} x {HEIGHT}",
        ),
        ("case", notes(detections=[{"label": "polyp", "box": [1, 2, 3, 4]}]), "a.json", "is a video"),
    ],
)
def test_labels_that_do_not_fit_are_refused(client, studies, image, content, name, message):
    before = sorted(path.name for path in (studies / "labels").rglob("*"))
    answer = put_label(client, image, content, name)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["detail"]
    assert sorted(path.name for path in (studies / "labels").rglob("*")) == before


@pytest.mark.parametrize("name", ["../evil", "..", "a/b", "/tmp/evil", ".hidden", "a\\b", "", "x" * 300])
def test_names_cannot_leave_the_folder(client, studies, name):
    before = set(studies.parent.rglob("*"))
    frame = encoded(draw(20))
    if name:  # without a name the file's is taken
        answer = client.put("/datastore/image", params={"image": name}, files={"file": ("any.png", frame)})
        assert (answer.status_code, "is no name" in answer.text) == (400, True)
        answer = put_label(client, "case_0001", encoded(MASK), tag=name)
        assert (answer.status_code, "is no name" in answer.text) == (400, True)
    answer = put_label(client, name, encoded(MASK))
    assert answer.status_code == 404
    assert set(studies.parent.rglob("*")) == before


def test_images_that_are_not_there_are_answered(client):
    for answer in (
        client.delete("/datastore/image", params={"id": "unknown"}),
        client.put("/datastore/image/info", params={"image": "unknown"}, data={"info": "{}"}),
        client.get("/datastore/image", params={"image": "../studies/single"}),
        put_label(client, "unknown", encoded(MASK)),
    ):
        assert answer.status_code == 404


def test_files_that_are_no_image_are_refused(client, studies):
    for name, content in (("a.png", b"no image"), ("a.mp4", b"no video"), ("a.py", b"print()"), ("a", b"")):
        answer = client.put("/datastore/image", params={"image": "strange"}, files={"file": (name, content)})
        assert answer.status_code == 400, answer.text
    assert not list(studies.glob("strange*"))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    folder = Path("/proc/self/task") if os.geteuid() == 0 else tmp_path  # root may write to any other
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=rf"{folder}.* cannot write there"):
        CheckedDatastore(str(folder))
    tmp_path.chmod(0o755)
