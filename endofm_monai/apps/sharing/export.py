# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, onnx_export, trt_export
from monai.utils import ensure_tuple_rep

from endofm_monai.utils import atomic_path
from endofm_monai.weights import load_published

__all__ = ["EXPORTED_NAMES", "export_network", "load_network"]

EXPORTED_NAMES = {"ts": "model.ts", "onnx": "model.onnx", "trt": "model_trt.ts"}
"""Format of an exported network, and the name of its file in a bundle's ``models``."""

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "trt": ("torch_tensorrt",)}


def load_network(bundle: str | os.PathLike, weights: str | os.PathLike, **overrides: Any) -> torch.nn.Module:
    """The network of a bundle's ``inference.json`` with weights of any layout, in evaluation mode.

    Args:
        bundle: the bundle's folder.
        weights: a file that :func:`endofm_monai.weights.load_published` reads.
        overrides: values for keys of ``inference.json``, for example ``preset="small"``.

    Raises:
        FileNotFoundError: when ``bundle`` has no ``configs/inference.json``.
        KeyError: when an override is no key of it.
        WeightsError: when the weights do not fit the network.
    """
    config = Path(bundle) / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{config}: is missing; `bundle` must be the folder of a bundle.")
    parser = ConfigParser()
    parser.read_config(str(config))
    if strange := [key for key in overrides if key.split("::")[0] not in parser.get()]:
        raise KeyError(f"{config}: has no key {', '.join(strange)}.")
    parser.update(overrides)
    network = parser.get_parsed_content("network_def")
    load_published(network, weights)
    return network.eval()


def export_network(
    bundle: str | os.PathLike,
    weights: str | os.PathLike,
    format: str = "ts",
    output: str | os.PathLike | None = None,
    precision: str = "fp32",
    **overrides: Any,
) -> Path:
    """Export the network of a bundle to a file that needs none of its Python code, by MONAI's export functions.

    =========  ====================================  ==================================================================
    format     file                                  shapes ``(B, 3, T, H, W)`` that it takes
    =========  ====================================  ==================================================================
    ``ts``     TorchScript                           all that the network takes
    ``onnx``   ONNX, compared with ONNX Runtime      those that ``configs/onnx_export.json`` leaves open
    ``trt``    TorchScript with a TensorRT engine    the one of the metadata (needs an NVIDIA GPU and torch_tensorrt)
    =========  ====================================  ==================================================================

    Args:
        bundle: the bundle's folder.
        weights: see :func:`load_network`.
        format: ``"ts"``, ``"onnx"`` or ``"trt"``.
        output: the file to write; by default in the bundle's ``models``, where the overlays ``inference_ts.json`` and
            ``inference_onnx.json`` look for it.
        precision: ``"fp32"`` or ``"fp16"``, for ``"trt"``.
        overrides: see :func:`load_network`.

    Returns:
        the file.

    Raises:
        ValueError: when there is no such format.
        RuntimeError: when a package or the GPU that the format needs is missing.
        AssertionError: when ONNX Runtime gives something else than PyTorch.

    Example::

        export_network("bundle/endofm_pretraining", "models/model.pt", "onnx", preset="small")
    """
    if format not in EXPORTED_NAMES:
        raise ValueError(f"`format` must be one of {', '.join(EXPORTED_NAMES)}, but got {format!r}.")
    if missing := [name for name in NEEDED.get(format, ()) if find_spec(name) is None]:
        raise RuntimeError(f"The format {format!r} needs {', '.join(missing)}: install with pip.")
    if format == "trt" and not torch.cuda.is_available():
        raise RuntimeError("The format 'trt' needs an NVIDIA GPU, as an engine is made for one: found none.")
    bundle = Path(bundle)
    path = Path(output or bundle / "models" / EXPORTED_NAMES[format])
    state = load_network(bundle, weights, **overrides).state_dict()
    configs = bundle / "configs"
    common: dict[str, Any] = {
        "net_id": "network_def",
        "meta_file": str(configs / "metadata.json"),
        "config_file": str(configs / "inference.json"),
        "bundle_root": str(bundle),
        **overrides,
    }
    with tempfile.TemporaryDirectory(prefix="endofm-") as folder, atomic_path(path) as temporary:
        common |= {"ckpt_file": f"{folder}/model.pt", "filepath": str(temporary)}
        torch.save(state, common["ckpt_file"])
        if format == "ts":
            ckpt_export(**common)
        elif format == "onnx":
            onnx_export(**common, **_onnx_settings(configs, overrides))
        else:
            trt_export(**common, precision=precision)
    return path


def _onnx_settings(configs: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """The bundle's settings of ``onnx_export``, with the size of the frames where it is fixed."""
    settings = json.loads((configs / "onnx_export.json").read_text(encoding="utf-8"))
    if 3 not in settings["converter_kwargs"]["dynamic_axes"]["image"] and "frame_size" in overrides:
        settings["input_shape"][3:] = ensure_tuple_rep(overrides["frame_size"], 2)
    return {key: settings[key] for key in ("input_shape", "converter_kwargs")}
