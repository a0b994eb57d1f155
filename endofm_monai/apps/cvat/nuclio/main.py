# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Nuclio function of CVAT for single frames: a button in CVAT's tools that asks a bundle about the frame on screen.

Nuclio hands over an image and no more, so the model sees no other frame; for videos take ``function.py``.
"""

import base64
import io
import json
import os
from typing import Any

from PIL import Image

from endofm_monai.apps.cvat.answers import open_annotator
from endofm_monai.data.readers.images import rgb_pixels
from endofm_monai.utils.settings import check_number


def init_context(context: Any) -> None:
    """Open the bundle that the variable ``ENDOFM_BUNDLE`` names, on the device ``ENDOFM_DEVICE``."""
    context.user_data.annotator = open_annotator(os.environ["ENDOFM_BUNDLE"], os.environ.get("ENDOFM_DEVICE", "cpu"))


def handler(context: Any, event: Any) -> Any:
    """Answer CVAT's request ``{"image": base64, "threshold": 0.5}`` with shapes or tags."""
    annotator = context.user_data.annotator
    try:
        with Image.open(io.BytesIO(base64.b64decode(event.body["image"]))) as opened:
            image = Image.fromarray(rgb_pixels(opened))
        if (threshold := event.body.get("threshold")) is not None:
            check_number("threshold", threshold := float(threshold))
    except (KeyError, OSError, TypeError, ValueError, Image.DecompressionBombError) as error:
        return _respond(context, {"error": f"the request is not usable ({type(error).__name__}: {error})"}, 400)
    annotator.begin()
    found = [
        {"confidence": f"{each.score:.5f}", "label": each.label, "points": list(each.points)}
        for each in annotator.push(image, threshold)
    ]
    return _respond(context, [{**each, "type": annotator.kind, "attributes": []} for each in found], 200)


def _respond(context: Any, content: Any, status: int) -> Any:
    return context.Response(body=json.dumps(content), headers={}, content_type="application/json", status_code=status)
