# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
from classification_trial import run_training, write_video


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory) -> Path:
    """Videos of noise, class 1 being bright."""
    folder = tmp_path_factory.mktemp("videos")
    datalist: dict[str, list] = {"training": [], "validation": [], "test": []}
    for section, count in (("training", 4), ("validation", 2), ("test", 4)):
        for number in range(count):
            name = f"{section}_{number}.mp4"
            write_video(folder / name, 100 * (number % 2) + number)
            datalist[section].append({"image": name, "label": number % 2})
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture(scope="session")
def trained(dataset_dir, tmp_path_factory) -> Path:
    """Output folder of a short training, made once."""
    output = tmp_path_factory.mktemp("trained")
    run_training(dataset_dir, output)
    return output
