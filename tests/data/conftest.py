# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest


@pytest.fixture(params=["seek", "walk"])
def always_seek(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endofm_monai.data.readers.video._SEEK_DISTANCE", 0 if request.param == "seek" else 1000)
