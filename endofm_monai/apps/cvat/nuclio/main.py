# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Nuclio function of CVAT for single frames: a button in CVAT's tools that asks a bundle about the frame on screen.

Nuclio hands over an image and no more, so the model sees no other frame; for videos take ``function.py``.
"""

from __future__ import annotations

import base64
import io
import json
import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from endofm_monai.apps.cvat.answers import FrameAnnotator
from endofm_monai.inferers.frame_models import open_frame_model

__all__ = ["handler", "init_context"]


def init_context(context: Any) -> None:
    """Open the bundle that the variable ``ENDOFM_BUNDLE`` names, on the device ``ENDOFM_DEVICE``."""
    model = open_frame_model(os.environ["ENDOFM_BUNDLE"], os.environ.get("ENDOFM_DEVICE", "cpu"))
    context.user_data.annotator = FrameAnnotator(model)


def handler(context: Any, event: Any) -> Any:
    """Answer CVAT's request ``{"image": base64, "threshold": 0.5}`` with shapes or tags."""
    annotator: FrameAnnotator = context.user_data.annotator
    data = event.body
    try:
        with Image.open(io.BytesIO(base64.b64decode(data["image"]))) as image:
            frame = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        threshold = None if data.get("threshold") is None else float(data["threshold"])
    except (KeyError, OSError, TypeError, ValueError) as error:
        return _respond(context, {"error": f"the request is not usable ({type(error).__name__}: {error})"}, 400)
    annotator.begin()
    answer = annotator.model.push(frame, object())
    return _respond(
        context,
        [
            {
                "confidence": f"{each.score:.5f}",
                "label": each.label,
                "type": annotator.kind,
                "points": list(each.points),
                "attributes": [],
            }
            for each in annotator.draw(answer, threshold)
        ],
        200,
    )


def _respond(context: Any, content: Any, status: int) -> Any:
    return context.Response(body=json.dumps(content), headers={}, content_type="application/json", status_code=status)
