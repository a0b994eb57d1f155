# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_sets import make_scene, write_frames


@pytest.fixture(scope="session")
def videos(tmp_path_factory: Any) -> Path:
    """A folder with six videos of 40 frames at 20 a second."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(6):
        write_frames(
            folder / f"{seed}.mp4", [make_scene(seed, shift / 4) for shift in range(40)], rate=20, title="Doe, Jane"
        )
    return folder
