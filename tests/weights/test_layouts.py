# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from endofm_monai.weights import WeightsError, read_weights
from endofm_monai.weights.layouts import clean_key


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("cls_token", "cls_token"),
        ("module.backbone.cls_token", "cls_token"),
        ("_orig_mod.module.model.backbone.norm.bias", "norm.bias"),
        ("head.mlp.0.weight", "head.mlp.0.weight"),
        ("module.head.last_layer.weight_g", "head.last_layer.parametrizations.weight.original0"),
        ("head.last_layer.weight_v", "head.last_layer.parametrizations.weight.original1"),
        ("decoder.backbone.weight", "decoder.backbone.weight"),
    ],
)
def test_clean_key(key, clean):
    assert clean_key(key) == clean


@pytest.mark.parametrize(
    ("content", "which", "layout", "part", "value"),
    [
        ({"teacher": {"x": 1}, "student": {"module.x": 2}, "epoch": 3}, "teacher", "training checkpoint", "teacher", 1),
        ({"teacher": {"x": 1}, "student": {"module.x": 2}, "epoch": 3}, "student", "training checkpoint", "student", 2),
        ({"module.teacher.x": 1, "module.student.x": 2}, "teacher", "training checkpoint", "teacher", 1),
        ({"teacher.backbone.x": 1, "student.backbone.x": 2}, "student", "training checkpoint", "student", 2),
        ({"network": {"x": 3}, "optimizer": {}}, "teacher", "nested state dict", "network", 3),
        ({"model_state": {"model.x": 4}}, "teacher", "nested state dict", "model_state", 4),
        ({"model": {"module.x": 5}, "iteration": 1}, "teacher", "nested state dict", "model", 5),
        ({"state_dict": {"module.backbone.x": 6}}, "teacher", "nested state dict", "state_dict", 6),
        ({"backbone.x": 7}, "teacher", "state dict", "all", 7),
    ],
)
def test_the_right_part_is_taken(tmp_path, content, which, layout, part, value):
    def tensors(level):
        return {
            key: tensors(item) if isinstance(item, dict) else torch.tensor(item) if key.endswith("x") else item
            for key, item in level.items()
        }

    torch.save(tensors(content), tmp_path / "file.pth")
    weights = read_weights(tmp_path / "file.pth", which)
    assert (weights.layout, weights.part) == (layout, part)
    assert {name: int(tensor) for name, tensor in weights.state.items()} == {"x": value}


@pytest.mark.parametrize(
    ("content", "which", "message"),
    [
        ({"student": {"x": torch.ones(1)}, "epoch": 1}, "teacher", "without 'teacher'; it holds student, epoch"),
        ({"backbone_state_dict": {"x": torch.ones(1)}}, "teacher", "fine-tuned classifier without 'state_dict'"),
        ({"x": torch.ones(1)}, "student", "is a state dict and has no student"),
        ({"x": torch.ones(1), "epoch": 3}, "teacher", "no known layout; it holds epoch besides tensors"),
        ({"teacher": {}}, "teacher", "training checkpoint without any tensor"),
        ({"module.x": torch.ones(1), "backbone.x": torch.ones(1)}, "teacher", "'module.x' and 'backbone.x' are both"),
    ],
)
def test_a_file_in_another_layout_is_named(tmp_path, content, which, message):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=rf"file\.pth: .*{message}"):
        read_weights(tmp_path / "file.pth", which)


def test_which_is_checked(tmp_path):
    with pytest.raises(ValueError, match="'teacher' or 'student'"):
        read_weights(tmp_path / "file.pth", "techer")
