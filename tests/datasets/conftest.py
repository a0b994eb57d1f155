# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dataset_files import script
from dataset_miniatures import miniature


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Any:
    """Hundreds of small files are written here; what is safe after a power failure, no test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("endofm_monai.utils.files.os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: Any) -> Any:
    """Gives, for each dataset, its source, its output, and the expected totals; prepared once."""
    done: dict[str, tuple[Path, Path, dict[str, int]]] = {}

    def prepare(name: str) -> tuple[Path, Path, dict[str, int]]:
        if name not in done:
            source = tmp_path_factory.mktemp(name) / "source"
            source.mkdir()
            totals = miniature(name, source)
            output = source.parent / "output"
            script(f"{name}/prepare.py").prepare(str(source), str(output), workers=1)
            done[name] = source, output, totals
        return done[name]

    return prepare
