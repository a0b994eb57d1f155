# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bundles import BundleUnderTest
from safetensors.torch import save_file
from video_answers import evaluate_videos

from endofm_monai.apps.sharing.build import build_bundle
from endofm_monai.handlers import MaskSaver
from endofm_monai.inferers import Bundle, OnnxDetector, OnnxNetwork, load_predictor
from endofm_monai.weights import WeightsError

NAME = "endofm_polyp_segmentation"
TINY = {
    **{"preset": "tiny", "network_def::embed_dim": 16, "network_def::depth": 1, "network_def::num_heads": 2},
    **{"decoder": "simple", "network_def::temporal": False, "frame_size": 32, "window": 1, "stride": 1},
}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A bundle as the project has it, with a tiny released network."""
    folder = tmp_path / NAME
    source = BundleUnderTest(NAME)
    shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("models", "large_files.yml"))
    (folder / "configs" / "released.json").write_text(json.dumps(TINY))
    (folder / "models").mkdir()
    network = source.workflow("infer", "inference", **TINY, device="cpu").parser.get_parsed_content("network_def")
    save_file(network.state_dict(), folder / "models" / "model.safetensors")
    return folder


def test_released_weights_bring_their_settings(released):
    predictor = load_predictor(released)
    assert predictor.network.backbone.embed_dim == 16
    assert not predictor.network.backbone.temporal
    assert not predictor.network.training  # also between answers, as several threads may ask for them
    assert load_predictor(released, stride=1, window=2).window == 2


def test_released_weights_bring_their_settings_also_by_a_link(released, tmp_path):
    stored = shutil.move(released / "models" / "model.safetensors", tmp_path / "stored.safetensors")
    (released / "models" / "model.safetensors").symlink_to(stored)
    assert Bundle(released).settings == TINY


def test_ones_own_weights_go_first_and_with_ones_own_settings(released):
    torch.save({"a": torch.zeros(1)}, released / "models" / "model.pt")
    own = Bundle(released, device="cpu", preset="tiny", decoder="simple")
    assert own.settings == {}
    assert own.weights.name == "model.pt"
    assert own.get("network").backbone.embed_dim == 192


def test_what_was_trained_from_them_keeps_their_settings(released):
    (released / "models" / "monai_label").mkdir()
    shutil.move(released / "models" / "model.safetensors", released / "models" / "monai_label" / "model.pt")
    shutil.copy(released / "models" / "monai_label" / "model.pt", released / "models" / "model.safetensors")
    bundle = Bundle(released)
    assert bundle.weights == bundle.trained_weights
    assert bundle.settings == TINY


def test_a_shared_bundle_of_them_stands_alone(released, tmp_path):
    build_bundle(released, released / "models" / "model.safetensors", tmp_path / "out", formats="safetensors")
    shared = tmp_path / "out" / NAME
    assert not (shared / "configs" / "released.json").exists()
    predictor, before = load_predictor(shared), load_predictor(released)
    for one, other in zip(predictor.network.parameters(), before.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_shared_weights_are_compared_with_their_hash_under_any_name(released, tmp_path, monkeypatch):
    entry = {"path": "models/model.safetensors", "hash_val": "0" * 64, "hash_type": "sha256"}
    (released / "large_files.yml").write_text(json.dumps({"large_files": [entry]}))
    (tmp_path / "link.safetensors").symlink_to(released / "models" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for weights in (f"{NAME}/models/model.safetensors", "link.safetensors"):
        with pytest.raises(WeightsError, match="is not the file that was shared"):
            load_predictor(NAME, weights=weights)


def test_settings_that_do_not_fit_the_released_weights_are_named(released):
    with pytest.raises(WeightsError, match=r"model.safetensors .*embed_dim 16.*the network has embed_dim 32"):
        load_predictor(released, **{"network_def::embed_dim": 32})


@pytest.fixture
def onnx_file(tmp_path) -> Path:
    """A network that takes the mean over frames and pixels, of frames of 4 x 6 pixels."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    tensor = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("ReduceMean", ["image", "axes"], ["pred"], keepdims=0)]
    axes = onnx.numpy_helper.from_array(torch.tensor([2, 3, 4]).numpy(), "axes")
    image = tensor("image", onnx.TensorProto.FLOAT, ["batch", 3, "frames", 4, 6])
    pred = tensor("pred", onnx.TensorProto.FLOAT, ["batch", 3])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "mean", [image], [pred], [axes]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_file_takes_the_place_of_a_network(onnx_file):
    network = OnnxNetwork(onnx_file).eval()
    clips = torch.randn(2, 3, 5, 4, 6)
    torch.testing.assert_close(network(clips), clips.mean((2, 3, 4)))
    half = network(clips.bfloat16())
    assert half.dtype == torch.float32
    assert next(network.parameters()).device == torch.device("cpu")
    assert network.state_dict()["place"].numel() == 0


def test_results_of_two_files_are_not_mixed(onnx_file, tmp_path):
    """As of a video that is done, with which a run that is started again has nothing left to do."""
    onnx = pytest.importorskip("onnx")
    saver = MaskSaver(tmp_path / "out", formats=["png"], settings={"window": 8})
    for _ in range(2):
        evaluate_videos([], None, saver, network=OnnxNetwork(onnx_file))
    model = onnx.load(onnx_file)
    model.graph.initializer[0].raw_data = torch.tensor([1, 3, 4]).numpy().tobytes()
    onnx.save(model, onnx_file)
    with pytest.raises(FileExistsError, match=r"other settings \(weights_sha256\)"):
        evaluate_videos([], None, saver, network=OnnxNetwork(onnx_file))


def test_other_shapes_and_files_are_named(onnx_file):
    with pytest.raises(ValueError, match=r"model.onnx: takes clips of shape \['batch', 3, 'frames', 4, 6\], but got"):
        OnnxNetwork(onnx_file)(torch.zeros(2, 3, 5, 8, 6))
    with pytest.raises(FileNotFoundError, match=r"other.onnx: is missing; scripts/export_bundle.py makes it"):
        OnnxNetwork(onnx_file.with_name("other.onnx"))
    onnx_file.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"model.onnx: is no ONNX file that ONNX Runtime can run"):
        OnnxNetwork(onnx_file)


def test_detector_refines_a_key_frame_with_its_supports(onnx_file):
    detector = OnnxDetector(onnx_file)
    frames = torch.randn(4, 3, 1, 4, 6)  # four frames, each alone, as they are read
    (level,) = detector.encode(frames)
    assert level.class_features.shape == (4, 1, 3, 4, 6)
    clip = type(level)(*(torch.cat([part[2:3], part[0:1]], dim=1) for part in level))
    expected = torch.cat([frames[2:3], frames[0:1]], dim=2).mean((2, 3, 4))
    torch.testing.assert_close(detector.head.refine([clip]), expected)
