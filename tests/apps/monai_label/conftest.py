# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))  # where tests and configurations find the modules beside this one

from blob_bundles import make_bundles, make_studies
from blob_scene import clear_cache, start_app


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    return make_studies(tmp_path_factory.mktemp("data") / "studies")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    return make_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def client(studies, bundles) -> Iterator[TestClient]:
    """The app in this process, for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        yield start_app(studies, bundles_dir=str(bundles))
    clear_cache()
