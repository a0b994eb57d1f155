# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from endofm_monai.inferers.exported import OnnxDetector, OnnxNetwork

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def path(tmp_path) -> Path:
    """A network that takes the mean over frames and pixels, of frames of 4 x 6 pixels."""
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


def test_file_takes_the_place_of_a_network(path):
    network = OnnxNetwork(path).eval()
    clips = torch.randn(2, 3, 5, 4, 6)
    torch.testing.assert_close(network(clips), clips.mean((2, 3, 4)))
    half = network(clips.bfloat16())
    assert half.dtype == torch.float32
    assert next(network.parameters()).device == torch.device("cpu")
    assert network.state_dict()["place"].numel() == 0


def test_other_shapes_and_files_are_named(path):
    with pytest.raises(ValueError, match=r"model.onnx: takes clips of shape \['batch', 3, 'frames', 4, 6\], but got"):
        OnnxNetwork(path)(torch.zeros(2, 3, 5, 8, 6))
    with pytest.raises(FileNotFoundError, match=r"other.onnx: is missing; scripts/export_bundle.py makes it"):
        OnnxNetwork(path.with_name("other.onnx"))
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"model.onnx: is no ONNX file that ONNX Runtime can run"):
        OnnxNetwork(path)


def test_detector_refines_a_key_frame_with_its_supports(path):
    detector = OnnxDetector(path)
    frames = torch.randn(4, 3, 1, 4, 6)  # four frames, each alone, as they are read
    (level,) = detector.encode(frames)
    assert level.class_features.shape == (4, 1, 3, 4, 6)
    clip = type(level)(*(torch.cat([part[2:3], part[0:1]], dim=1) for part in level))
    expected = torch.cat([frames[2:3], frames[0:1]], dim=2).mean((2, 3, 4))
    torch.testing.assert_close(detector.head.refine([clip]), expected)
