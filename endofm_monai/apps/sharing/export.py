# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, onnx_export, trt_export
from monai.utils import ensure_tuple_rep
from torch import nn

from endofm_monai.inferers.bundle import released_settings
from endofm_monai.utils import PathLike, atomic_path, check_settings, nearest_key, read_json, write_json
from endofm_monai.weights import load_published

EXPORTED_NAMES = {"ts": "model.ts", "onnx": "model.onnx", "trt": "model_trt.ts"}  # by format, in a bundle's `models`

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "trt": ("torch_tensorrt",)}


def load_network(bundle: Path, weights: PathLike, **overrides: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a bundle with weights, in evaluation mode, and its ``inference.json`` with the overrides."""
    config = bundle / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{config}: is missing; `bundle` must be the folder of a bundle.")
    parser = ConfigParser(read_json(config, dict))
    if unknown := [key for key in overrides if key.partition("::")[0] not in parser.get()]:
        raise ValueError(f"{config}: has no key `{unknown[0]}`.{nearest_key(unknown[0], parser.get())}")
    parser.update(overrides)
    check_settings(parser, config.parent)
    network = parser.get_parsed_content("network_def")
    backbone = parser.get_parsed_content("backbone_weights") if "backbone_weights" in parser else None
    load_published(network, weights, backbone=backbone)
    return network.eval(), parser.get()


def clip_shape(inference: dict[str, Any]) -> list[int]:
    """Frames (a detector's are a key frame and two supports), height and width of clips, by an ``inference.json``."""
    parsed = ConfigParser(dict(inference)).get_parsed_content
    frames = 3 if _is_detector(inference) else parsed("num_frames" if "num_frames" in inference else "window")
    return [frames, *ensure_tuple_rep(parsed("frame_size"), 2)]


def _is_detector(inference: dict[str, Any]) -> bool:
    return "Detector" in inference["network_def"]["_target_"]


def export_network(
    bundle: PathLike,
    weights: PathLike,
    format: str = "ts",
    output: PathLike | None = None,
    precision: str = "fp32",
    **overrides: Any,
) -> Path:
    """Export the network of a bundle to a file that needs none of its Python code, by MONAI's export functions.

    The overlay with which inference runs the file, ``configs/inference_ts.json`` or ``inference_onnx.json``, is
    written too.

    Args:
        bundle: the bundle's folder.
        weights: a file that fits its network, see docs/weights.md.
        format: ``"ts"``, TorchScript, takes clips of any shape that the network takes; so does ``"onnx"``, compared
            with ONNX Runtime, but for the detector and the decoder ``transunet``, whose frames have the bundle's
            ``frame_size``; ``"trt"``, a TensorRT engine for an NVIDIA GPU, takes clips of one shape.
        output: the file to write; by default in the bundle's ``models``, where the overlays look for it.
        precision: ``"fp32"`` or ``"fp16"``, for ``"trt"``.
        overrides: values for keys of ``inference.json``, for example ``preset="small"``.
    """
    if format not in EXPORTED_NAMES:
        raise ValueError(f"`format` must be one of {', '.join(EXPORTED_NAMES)}, but got {format!r}.")
    if missing := [name for name in NEEDED.get(format, ()) if find_spec(name) is None]:
        raise RuntimeError(f"The format {format!r} needs {', '.join(missing)}: install with pip.")
    if format == "trt" and not torch.cuda.is_available():
        raise RuntimeError("The format 'trt' needs an NVIDIA GPU, as an engine is made for one: found none.")
    bundle = Path(bundle)
    overrides = {**released_settings(bundle, Path(weights)), **overrides}
    configs = bundle / "configs"
    path = Path(output or bundle / "models" / EXPORTED_NAMES[format])
    network, inference = load_network(bundle, weights, **overrides)
    written = overlays(inference)
    with tempfile.TemporaryDirectory(prefix="endofm-") as folder, atomic_path(path) as temporary:
        torch.save(network.state_dict(), Path(folder, "model.pt"))
        common = {
            "net_id": "network_def",
            "bundle_root": str(bundle),
            "filepath": f"{folder}/{EXPORTED_NAMES[format]}",
            "meta_file": str(configs / "metadata.json"),
            "config_file": str(configs / "inference.json"),
            "ckpt_file": f"{folder}/model.pt",
            **overrides,
        }
        if format == "ts":
            ckpt_export(**common)
        elif format == "onnx":
            onnx_export(**{**common, **written["onnx_export"]})
        else:
            trt_export(**common, precision=precision, input_shape=[1, 3, *clip_shape(inference)])
        shutil.copyfile(common["filepath"], temporary)  # TorchScript writes its file's name into it
    if (name := f"inference_{format}") in written:
        write_json(configs / f"{name}.json", written[name], indent=4)
    return path


def overlays(inference: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Two configurations to put on ``inference.json``, for exported networks; and arguments of ``onnx_export``."""
    adapter = f"endofm_monai.inferers.{'OnnxDetector' if _is_detector(inference) else 'OnnxNetwork'}"
    networks = {"ts": "$torch.jit.load(@exported, @device)", "onnx": {"_target_": adapter, "path": "@exported"}}
    changed = {"load_pretrain": False, **({"amp": False} if "amp" in inference else {})}
    made: dict[str, dict[str, Any]] = {}
    for format, network in networks.items():
        exported = f"$@bundle_root + '/models/{EXPORTED_NAMES[format]}'"
        made[f"inference_{format}"] = {"exported": exported, **changed, "network_def": network}
    # here height and width are fixed: the exporter makes bounds of the sizes that boxes, or padded skips, come from
    has_one_size = _is_detector(inference) or inference.get("decoder") == "transunet"
    axes = {"image": [0, 2] if has_one_size else [0, 2, 3, 4]}
    settings = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": axes, "verify": True}
    settings |= {"use_ort": True, "rtol": 0.001, "atol": 0.0001}
    shape = [2, 3, *clip_shape(inference)]
    return {**made, "onnx_export": {"net_id": "network_def", "input_shape": shape, "converter_kwargs": settings}}
