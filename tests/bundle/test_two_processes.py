# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from bundles import BundleUnderTest
from trial import TRIAL_TRAINING

TRAININGS = {
    name: BundleUnderTest(name, training={**settings, "epochs": 2}) for name, settings in TRIAL_TRAINING.items()
}


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_from_another_folder(name, trial_datalist, tmp_path):
    TRAININGS[name].train_in_two_processes(trial_datalist.parent, tmp_path, datalist=trial_datalist)
    state = torch.load(tmp_path / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == 2  # 2 clips, 2 processes, batches of 1, 2 epochs
    assert len(state["random_states"]) == 2
    assert not any(key.startswith("module.") for key in state.get("network", state.get("student")))
    assert (tmp_path / "models" / "model.pt").exists()
