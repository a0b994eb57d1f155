# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import BundleUnderTest, write_noise
from monai.bundle import ConfigParser
from trial import TRIAL_INFERENCE

from endofm_monai.apps.sharing.zoo_tests import make_trial_clips


@pytest.fixture(scope="session")
def trial_datalist(tmp_path_factory) -> Path:
    """Datalist of clips with the labels of all tasks."""
    return make_trial_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> Path:
    """Six labeled videos of noise about a mean of their own, class 1 being bright."""
    folder = tmp_path_factory.mktemp("videos")
    datalist: dict[str, list] = {"training": [], "validation": []}
    for number in range(6):
        name = f"{number}.mp4"
        write_noise(folder / name, 100 * (number % 2) + number, frames=12)
        datalist["training" if number < 4 else "validation"].append({"image": name, "label": number % 2})
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


def make_network(bundle: BundleUnderTest, config: str, settings: dict[str, Any]) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(bundle.config(config)[0])
    parser.update(settings)
    return parser.get_parsed_content("network_def")


@pytest.fixture(scope="session")
def trial_network() -> Any:
    """The network of one of a bundle's configs with some settings, as a fixture."""
    return make_network


@pytest.fixture
def with_model(bundle, tmp_path) -> Path:
    """A copy of the bundle with random weights of its trial size, of which none is without effect."""
    torch.manual_seed(0)
    copy = tmp_path / bundle.folder.name
    shutil.copytree(bundle.folder, copy, ignore=shutil.ignore_patterns("eval", "models"))
    (copy / "models").mkdir()
    network = make_network(bundle, "inference", TRIAL_INFERENCE[copy.name])
    for name, parameter in network.named_parameters():
        if name.endswith(("cls_logits.bias", "refined_class.bias")):  # the detector's prior: nothing is there
            torch.nn.init.zeros_(parameter)
        elif not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), copy / "models" / "model.pt")
    return copy
