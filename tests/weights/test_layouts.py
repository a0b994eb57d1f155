# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from endofm_monai.weights import WeightsError, read_weights
from endofm_monai.weights.layouts import clean_key, read_checkpoint


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


class Command:
    """Runs a shell command when it is unpickled by an unsafe reader."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_training_state_of_the_published_code_is_read(tmp_path, zipped):
    path = tmp_path / "checkpoint.pth"
    content = {
        "args": argparse.Namespace(lr=5e-4, output_dir="."),
        "optimizer": {"param_groups": [{"lr": np.float64(0.25)}]},
        "teacher": {"norm.bias": torch.arange(3.0)},
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path)
    assert read["args"].lr == 5e-4
    assert read["optimizer"]["param_groups"][0]["lr"] == 0.25
    assert read["teacher"]["norm.bias"].tolist() == [0, 1, 2]


def test_names_that_numpy_1_gave_its_scalars(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"lr": np.float64(0.25)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(path)["lr"] == 0.25


@pytest.mark.parametrize("zipped", [True, False])
def test_a_command_in_a_file_is_named_and_does_not_run(tmp_path, zipped):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"teacher": {}, "args": Command(f"touch {trace}")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"evil\.pth: needs the Python object (posix|nt)\.system") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_a_plain_pickle_does_not_run_under_any_suffix(tmp_path, suffix):
    path, trace = tmp_path / f"evil{suffix}", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Command(f"touch {trace}"), protocol=2))
    with pytest.raises(WeightsError, match="evil"):
        read_checkpoint(path)
    assert not trace.exists()


def test_an_array_of_objects_in_an_archive_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", cls_token=np.array([{}], dtype=object))
    with pytest.raises(WeightsError, match=r"objects\.npz"):
        read_checkpoint(tmp_path / "objects.npz")


def save_archive(tensors: dict[str, torch.Tensor], path: os.PathLike) -> None:
    np.savez(path, **{key: tensor.numpy() for key, tensor in tensors.items()})


SAVERS = {".pth": torch.save, ".safetensors": save_file, ".npz": save_archive}


@pytest.mark.parametrize("suffix", SAVERS)
def test_formats(tmp_path, suffix):
    tensors = {"cls_token": torch.rand(1, 1, 64).half(), "norm.bias": torch.rand(64)}
    SAVERS[suffix](tensors, tmp_path / f"file{suffix}")
    read = read_checkpoint(tmp_path / f"file{suffix}")
    assert read.keys() == tensors.keys()
    assert all(read[key].dtype == tensors[key].dtype and torch.equal(read[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, suffix, share):
    path = tmp_path / f"cut{suffix}"
    SAVERS[suffix]({"cls_token": torch.rand(1, 1, 4096)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=rf"cut\{suffix}: cannot be read: damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_refused_by_key(tmp_path, suffix, value, dtype):
    tensors = {"cls_token": torch.zeros(1, 1, 64, dtype=dtype), "norm.bias": torch.full((64,), value, dtype=dtype)}
    SAVERS[suffix](tensors, tmp_path / f"sick{suffix}")
    with pytest.raises(WeightsError, match=rf"sick\{suffix}: 'norm\.bias' holds NaN or infinity"):
        read_weights(tmp_path / f"sick{suffix}")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1).expand(10**6, 10**6), r"claims the shape \(1000000, 1000000\), more than is stored"),
        (torch.eye(4).to_sparse(), "is not stored number by number"),
    ],
)
def test_what_a_tensor_claims_is_stored(tmp_path, tensor, message):
    torch.save({"cls_token": tensor}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=rf"file\.pth: 'cls_token' {message}"):
        read_weights(tmp_path / "file.pth")


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", cls_token=np.zeros((1, 1, 1 << 20), np.float32))
    with pytest.raises(WeightsError, match=r"zeros\.npz: .* bytes would unpack to .*, more than 20 times as much"):
        read_weights(tmp_path / "zeros.npz")


def test_other_content(tmp_path):
    (tmp_path / "text.pth").write_text("hello\n" * 20)
    with pytest.raises(WeightsError, match=r"text\.pth: cannot be read: damaged"):
        read_checkpoint(tmp_path / "text.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(WeightsError, match=r"tensor\.pth: must hold a dictionary of weights, but holds a Tensor"):
        read_checkpoint(tmp_path / "tensor.pth")
    with pytest.raises(WeightsError, match=r"none\.pth: there is no such file"):
        read_checkpoint(tmp_path / "none.pth")


def test_weights_that_come_along_need_their_settings(tmp_path):
    released = tmp_path / "models" / "model.safetensors"
    for file in (tmp_path / "configs" / "released.json", released):
        file.parent.mkdir()
        file.touch()
    hint = r" For model\.safetensors beside it add \S+released\.json to the configurations\."
    with pytest.raises(WeightsError, match=rf"model\.pt: there is no such file of weights\.{hint}$"):
        read_checkpoint(released.with_name("model.pt"))
    released.unlink()
    for name in ("model.pt", released.name):
        with pytest.raises(WeightsError, match=r"there is no such file of weights\.$"):
            read_checkpoint(released.with_name(name))
