# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.networks.nets import EndoFM

BUNDLE = Path(__file__).parents[3] / "bundle" / "endofm_pretraining"
SETTINGS = {"preset": "tiny", "network_def::depth": 1, "frame_size": 32}


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder with weights (``trained.pt``) and the pre-training bundle made of them (``out``)."""
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(0)
    torch.save(EndoFM.from_preset("tiny", depth=1).state_dict(), folder / "trained.pt")
    build_bundle(BUNDLE, folder / "trained.pt", folder / "out", **SETTINGS)
    return folder


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those of the shared bundle."""
    return dict(SETTINGS)
