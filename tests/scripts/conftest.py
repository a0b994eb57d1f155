# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    """The modules of the comparison, imported as the script does."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare
    import comparison.run

    yield compare, comparison.run
    for name in ("compare", "comparison.run", "comparison.schema", "comparison.tables", "comparison"):
        sys.modules.pop(name, None)
