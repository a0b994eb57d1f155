# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from endofm_monai.apps.sharing import export
from endofm_monai.apps.sharing.export import export_network
from endofm_monai.networks.nets import EndoFMSegmenter
from endofm_monai.utils import read_json

BUNDLE = Path(__file__).parents[3] / "bundle" / "endofm_pretraining"


def test_what_a_format_needs_is_told_before_anything_is_loaded(monkeypatch, tmp_path):
    missing = {"onnxscript", "torch_tensorrt"}
    monkeypatch.setattr(export, "find_spec", lambda name: None if name in missing else name)
    for format, package in (("onnx", "onnxscript"), ("trt", "torch_tensorrt")):
        with pytest.raises(RuntimeError, match=f"The format '{format}' needs {package}: install"):
            export_network(BUNDLE, tmp_path / "no such file", format)
    monkeypatch.setattr(export, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="The format 'trt' needs an NVIDIA GPU"):
        export_network(BUNDLE, tmp_path / "no such file", "trt")
    with pytest.raises(ValueError, match="`format` must be one of ts, onnx, trt, but got 'tflite'"):
        export_network(BUNDLE, tmp_path / "no such file", "tflite")


@pytest.mark.parametrize(
    ("task", "settings", "open_axes"),
    [
        ("segmentation", {"decoder": "simple"}, [0, 2, 3, 4]),
        ("segmentation", {"decoder": "transunet"}, [0, 2]),  # its skips are padded by a size that the exporter bounds
        ("detection", {}, [0, 2]),
        ("classification", {}, [0, 2, 3, 4]),
    ],
)
def test_the_dimensions_that_are_open_in_onnx(task, settings, open_axes):
    inference = read_json(BUNDLE.with_name(f"endofm_polyp_{task}") / "configs" / "inference.json", dict)
    made = export.overlays({**inference, **settings})
    assert made["onnx_export"]["converter_kwargs"]["dynamic_axes"] == {"image": open_axes}


@pytest.mark.full_size
def test_the_published_decoder_in_onnx_gives_what_the_network_gives(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    bundle = tmp_path / "endofm_polyp_segmentation"
    shutil.copytree(BUNDLE.with_name(bundle.name) / "configs", bundle / "configs")
    network = EndoFMSegmenter.from_preset("mini", depth=1).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    settings = {"preset": "mini", "network_def::depth": 1, "frame_size": 64, "window": 3}
    path = export_network(bundle, tmp_path / "model.pt", "onnx", tmp_path / "model.onnx", **settings)
    for frames in (1, 5):
        clip = torch.randn(2, 3, frames, 64, 64)
        (found,) = runtime.InferenceSession(path).run(None, {"image": clip.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), network(clip), rtol=1e-3, atol=1e-4)


def test_weights_that_come_with_the_project_bring_their_settings(monkeypatch, tmp_path):
    bundle = BUNDLE.with_name("endofm_polyp_classification")
    given: dict[str, Any] = {}

    def keep(**arguments: Any) -> None:
        Path(arguments["filepath"]).touch()
        given.update(arguments)

    monkeypatch.setattr(export, "ckpt_export", keep)
    monkeypatch.setattr(export, "write_json", lambda *_, **__: None)
    export_network(bundle, bundle / "models" / "model.safetensors", output=tmp_path / "model.ts")
    settings = read_json(bundle / "configs" / "released.json", dict)
    assert settings.items() <= given.items()


def test_an_engine_has_the_precision_that_is_asked_for(monkeypatch, tmp_path, shared, settings):
    found: list[str] = []

    def keep(**arguments: Any) -> None:
        Path(arguments["filepath"]).touch()
        found.append(arguments["precision"])

    monkeypatch.setattr(export, "trt_export", keep)
    monkeypatch.setattr(export, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for chosen in ({}, {"precision": "fp16"}):
        export_network(BUNDLE, shared / "trained.pt", "trt", tmp_path / "engine.ts", **chosen, **settings)
    assert found == ["fp32", "fp16"]


def test_an_export_has_the_same_bytes_each_time(shared, settings, tmp_path):
    bundle, (one, other) = shared / "out" / "endofm_pretraining", (tmp_path / name for name in ("a.ts", "b.ts"))
    for file in (one, other):
        export_network(bundle, shared / "trained.pt", output=file, **settings)
    assert one.read_bytes() == other.read_bytes()
