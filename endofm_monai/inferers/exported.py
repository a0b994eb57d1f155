# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import torch
from monai.utils import optional_import
from torch import nn

from endofm_monai.networks.blocks import FrameFeatures

onnxruntime, _ = optional_import("onnxruntime")


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, run by ONNX Runtime in float32, where a bundle expects its PyTorch network.

    The file has one input and one output; see ``scripts/export_bundle.py``. It runs on CUDA where there is one.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: is missing; scripts/export_bundle.py makes it.")
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=providers)
        except Exception as error:  # ONNX Runtime has a class of its own for each way to fail
            raise ValueError(f"{path}: is no ONNX file that ONNX Runtime can run: {error}") from error
        self.path = path
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # tells others the device, and moves with `to`

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the file gives for clips ``(B, 3, T, H, W)``, on their device."""
        (expected,) = self.session.get_inputs()
        fits = (size == given for size, given in zip(expected.shape, x.shape, strict=True) if isinstance(size, int))
        if not all(fits):
            raise ValueError(f"{self.path}: takes clips of shape {expected.shape}, but got {list(x.shape)}.")
        (output,) = self.session.run(None, {expected.name: x.detach().float().cpu().numpy()})
        return torch.from_numpy(output).to(x.device)


class OnnxDetector(OnnxNetwork):
    """A detector in an ONNX file, for a :class:`endofm_monai.inferers.DetectionPredictor`.

    The file holds both stages in one graph, so what is kept of a frame is the frame itself, and it is encoded with
    every key frame that it supports: same detections, at ``1 + num_supports`` times the work of the PyTorch network.
    """

    @property
    def head(self) -> OnnxDetector:
        """The part with ``refine``, which is this network."""
        return self

    def encode(self, x: torch.Tensor) -> list[FrameFeatures]:
        """Frames of normalized clips ``(B, 3, T, H, W)`` as they are, ``(B, T, 3, H, W)``, in the place of features."""
        frames = x.transpose(1, 2)
        nothing = frames[:, :, :0]
        return [FrameFeatures(frames, nothing, nothing, nothing, nothing)]

    def refine(self, frames: list[FrameFeatures]) -> torch.Tensor:
        """Predictions ``(B, 2*K + 12, L)`` of the first of the frames, with the others as its supports."""
        return self(frames[0].class_features.transpose(1, 2))
