# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blob_bundles import FRAMES, draw, make_bundles

from endofm_monai.apps.endofm.__main__ import predict
from endofm_monai.formats import write_video


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Path:
    """Bundles that find what is red."""
    return make_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def blob(tmp_path_factory) -> Path:
    """A video of 30 frames, of which 9 to 19 show a red ellipse."""
    path = tmp_path_factory.mktemp("blob") / "blob.mp4"
    empty = np.full((72, 96, 3), 90, np.uint8)
    frames = [*[empty] * 9, *(np.asarray(draw(index)) for index in range(FRAMES)), *[empty] * 10]
    write_video(path, frames, fps=10, crf=10)
    return path


@pytest.fixture(scope="session", autouse=True)
def float32():
    """The command computes in float32, whatever this CPU is good at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("endofm_monai.inferers.predictor.multiplies_faster", lambda dtype, device: False)
        yield


@pytest.fixture(scope="session")
def results(bundles, blob, tmp_path_factory) -> Path:
    """What the command writes of the video by all three bundles."""
    folder = tmp_path_factory.mktemp("out") / "blob"
    predict(str(blob), str(folder), bundle=str(bundles), device="cpu")
    return folder
