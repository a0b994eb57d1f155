# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from endofm_monai.weights import WeightsError, load_published
from endofm_monai.weights.__main__ import compact, convert, inspect


@pytest.fixture
def source(tmp_path, training_checkpoint):
    torch.save(training_checkpoint, tmp_path / "endo_fm.pth")
    return tmp_path / "endo_fm.pth"


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_the_backbone_survives_and_its_origin_is_kept(source, make_backbone, backbone_state, which):
    target = source.with_name("endo_fm.safetensors")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest in convert(source, target, which=which)
    with safe_open(target, framework="pt") as archive:
        metadata = archive.metadata()
    assert metadata["source_sha256"] == digest
    assert metadata["source_file"] == "endo_fm.pth"
    assert (metadata["layout"], metadata["part"]) == ("training checkpoint", which)
    assert metadata["endofm_monai_version"]

    expected = backbone_state("" if which == "teacher" else "student")
    plain, loaded = make_backbone(), make_backbone()
    plain.load_state_dict(load_file(target))
    assert len(load_published(loaded, target).matched) == 67
    for backbone in (plain, loaded):
        assert all(torch.equal(tensor, expected[key]) for key, tensor in backbone.state_dict().items())


def test_the_bytes_are_the_same_each_time(source):
    files = [source.with_name(f"{number}.safetensors") for number in range(4)]  # of orders by chance two would be alike
    for file in files:
        convert(source, file)
    assert len({file.read_bytes() for file in files}) == 1
    length = int.from_bytes(files[0].read_bytes()[:8], "little")
    assert length % 8 == 0
    assert files[0].stat().st_size == 8 + length + sum(tensor.nbytes for tensor in load_file(files[0]).values())


def test_a_name_that_is_no_text_is_written_escaped(source):
    strange = Path(os.fsdecode(os.fsencode(source.parent) + b"/polyp\xff.npz"))
    with strange.open("wb") as file:
        np.savez(file, cls_token=np.ones((1, 1, 2), np.float32))
    convert(strange, source.with_name("out.safetensors"))
    assert "source_file: polyp\\udcff.npz" in inspect(source.with_name("out.safetensors"))


def test_the_head_on_request(source, make_network, wrapper_state):
    target = source.with_name("wrapper.safetensors")
    convert(source, target, head=True)
    network = make_network()
    network.load_state_dict(load_file(target))
    expected = wrapper_state()
    assert torch.equal(network.head.mlp[0].weight, expected["head.mlp.0.weight"])
    assert torch.equal(network.head.last_layer.parametrizations.weight.original1, expected["head.last_layer.weight_v"])
    assert torch.equal(network.backbone.cls_token, expected["backbone.cls_token"])
    assert len(load_published(make_network(), target).matched) == 75


def test_tensors_that_share_memory(tmp_path, backbone_state):
    state = backbone_state()
    state["norm.weight"] = state["norm.bias"]
    torch.save(state, tmp_path / "shared.pth")
    convert(tmp_path / "shared.pth", tmp_path / "shared.safetensors")
    assert torch.equal(load_file(tmp_path / "shared.safetensors")["norm.weight"], state["norm.bias"])


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({"decoder.weight": torch.ones(2)}, {}, "holds no backbone; its first tensor is 'decoder.weight'"),
        ({"cls_token": torch.ones(1, 1, 2)}, {"head": True}, "holds nothing besides the backbone"),
        ({"cls_token": torch.ones(1, 1, 2)}, {"which": "student"}, "has no student"),
    ],
)
def test_nothing_is_written_when_the_part_is_not_there(tmp_path, content, arguments, message):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=rf"file\.pth: .*{message}"):
        convert(tmp_path / "file.pth", tmp_path / "out.safetensors", **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


@pytest.mark.parametrize("command", [convert, compact])
def test_the_target_is_a_file_of_its_own(source, command):
    before = source.read_bytes()
    for target in (source.with_name("out.pth"), source):
        with pytest.raises(ValueError, match=rf"{target.name}: .*'\.safetensors'"):
            command(source, target)
    same = source.rename(source.with_name("same.safetensors"))
    with pytest.raises(ValueError, match=r"same\.safetensors: is a file to read"):
        command(same, same)
    assert same.read_bytes() == before


def test_inspect(source):
    text = inspect(source)
    assert "layout: training checkpoint, teacher" in text
    assert "architecture: video transformer, embed_dim 48, depth 3, patch_size 16, positions 17, num_frames 4" in text
    assert "tensors: 75 (torch.float32)" in text
    assert "outside the backbone: head" in text
    target = source.with_name("out.safetensors")
    convert(source, target)
    assert "source_file: endo_fm.pth" in inspect(target)


def test_inspect_knows_other_networks(tmp_path):
    torch.save({"layers.0.mixer.A_log": torch.ones(2, 2)}, tmp_path / "mamba.pth")
    assert "architecture: a Mamba (VideoMamba, EndoMamba, FPRL), of state" in inspect(tmp_path / "mamba.pth")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``python -m endofm_monai.weights`` in this process, and give what it printed."""

    monkeypatch.delitem(sys.modules, "endofm_monai.weights.__main__")

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
        runpy.run_module("endofm_monai.weights", run_name="__main__")
        return capsys.readouterr().out

    return call


def test_command_line(source, run):
    target = source.with_name("out.safetensors")
    printed = run("convert", source, target, "--which", "student", "--head")
    assert "layout: training checkpoint, student" in printed
    assert f"wrote 75 tensors to {target}" in printed
    assert "backbone.cls_token" in load_file(target)
    assert "part: student" in run("inspect", target)


def test_command_line_ends_with_a_line_about_a_broken_file(source, run):
    source.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(SystemExit, match=f"^error: {source}: cannot be read[^\n]*$"):
        run("inspect", source)


def test_command_line_of_the_catalogue(tmp_path, run):
    assert "cholec80.pth" in run("list", "--task", "phases")
    assert "CC BY-NC-SA 4.0" in run("show", "HecVL.pth")
    for name, reason in {"endofm_lv.pth": "its link is dead", "endo_fm.pth": "is fetched if you accept"}.items():
        with pytest.raises(SystemExit, match=f"^error: {name}: {reason}[^\n]*$"):
            run("download", name, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
