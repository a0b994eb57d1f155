# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The app that serves the bundles, in this process, and questions to it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from blob_bundles import ROOT
from fastapi.testclient import TestClient
from monailabel.app import app
from monailabel.config import settings
from monailabel.interfaces.utils.app import clear_cache
from PIL import Image

APP = ROOT / "endofm_monai" / "apps" / "monai_label"


def start_app(studies: Path, **conf: str) -> TestClient:
    settings.MONAI_LABEL_APP_DIR = str(APP)
    settings.MONAI_LABEL_STUDIES = str(studies)
    settings.MONAI_LABEL_APP_CONF = conf
    settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
    clear_cache()
    client = TestClient(app)  # not as a context: that would start threads that never end
    assert client.get("/info/").status_code == 200
    return client


def infer(client: Any, model: str, result: str = "json", image: str = "", file: Any = None, **params: Any) -> Any:
    files = None if file is None else {"file": file}
    return client.post(
        f"/infer/{model}", params={"image": image, "output": result}, data={"params": json.dumps(params)}, files=files
    )


def put_label(client: Any, image: str, content: bytes, name: str = "label.png", tag: str = "final") -> Any:
    return client.put("/datastore/label", params={"image": image, "tag": tag}, files={"label": (name, content)})


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind)
    return file.getvalue()


def mask(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float((found & expected).sum() / (found | expected).sum())
