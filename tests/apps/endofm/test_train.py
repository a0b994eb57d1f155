# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from trial import TRIAL_INFERENCE, TRIAL_TRAINING

from endofm_monai.apps.endofm.__main__ import predict, pretrain, train
from endofm_monai.apps.sharing.zoo_tests import make_trial_clips
from endofm_monai.utils import run_from_command_line

SEGMENTATION, PRETRAINING = "endofm_polyp_segmentation", "endofm_pretraining"


@pytest.fixture(scope="module")
def datalist(tmp_path_factory) -> Path:
    return make_trial_clips(tmp_path_factory.mktemp("clips"))


def outputs(folder: Path) -> dict[str, Any]:
    return {"ckpt_dir": str(folder / "models"), "output_dir": str(folder / "eval"), "device": "cpu"}


def test_what_is_trained_predicts(datalist, tmp_path):
    data = str(datalist.parent)
    train("segmentation", data, **TRIAL_TRAINING[SEGMENTATION], **outputs(tmp_path))
    weights = str(tmp_path / "models" / "model.pt")
    settings = {**TRIAL_INFERENCE[SEGMENTATION], "datalist": str(datalist), "weights": weights, "device": "cpu"}
    predict(data, str(tmp_path / "out"), task="segmentation", **settings)
    assert "Settings and models" in (tmp_path / "out" / "report.html").read_text()


def test_pretraining_with_several_configurations_and_signs_in_paths(datalist, tmp_path):
    tmp_path = tmp_path / "o#1"
    listed = shutil.copy(datalist, datalist.with_name("list#1.json"))
    pretrain(
        str(datalist.parent),
        configs="train,tiny",
        **TRIAL_TRAINING[PRETRAINING],
        **outputs(tmp_path),
        datalist=str(listed),
    )
    assert (tmp_path / "models" / "model.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seg", "DATA", {}), "`task` must be one of segmentation, detection, classification, found 'seg'"),
        (("segmentation", "absent#1", {}), "absent#1: `dataset_dir` is not an existing folder"),
        (("segmentation", "DATA", {"epohcs": 1}), "`epohcs`: no config has such a key. Did you mean `epochs`?"),
        (("segmentation", "DATA", {"configs": "train,tinny"}), "tinny.json"),
        (("segmentation", "DATA", {"configs": "evaluate"}), "`configs` must begin with train"),
        (("segmentation", "DATA", {"dataset_dir": "other"}), "`dataset_dir`: the command sets it itself"),
        (("segmentation", "DATA", {"+dataset_dir": "other"}), "`+dataset_dir`: the command sets it itself"),
        (("segmentation", "DATA", {"config_file": "a.json"}), "`config_file`: the command sets it itself"),
    ],
)
def test_errors_are_one_line(arguments, message, datalist, tmp_path):
    task, data, more = arguments
    data = str(datalist.parent) if data == "DATA" else data
    settings = {**TRIAL_TRAINING[SEGMENTATION], **outputs(tmp_path), "datalist": str(datalist), **more}
    with pytest.raises(SystemExit) as end:
        run_from_command_line(lambda: train(task, data, **settings), command=[])
    assert str(end.value).startswith("error: ")
    assert message in str(end.value)
    assert "\n" not in str(end.value)
