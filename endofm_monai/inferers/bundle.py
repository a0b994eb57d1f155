# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from pathlib import Path
from typing import Any

import torch
from monai.apps.utils import check_hash
from monai.bundle import ConfigParser
from monai.utils import optional_import
from torch import nn

import endofm_monai
from endofm_monai.inferers.predictor import Predictor
from endofm_monai.networks.blocks import FrameFeatures
from endofm_monai.utils import PathLike, as_class_names, as_device, cause_of, check_settings, read_json, sha256
from endofm_monai.utils.settings import literal, literal_texts
from endofm_monai.weights import LoadReport, WeightsError, load_published

onnxruntime, _ = optional_import("onnxruntime")

LARGE_FILES = "large_files.yml"
TASKS = ("segmentation", "detection", "classification")


class BundleError(ValueError):
    """A bundle that the app cannot use; the message names the file, what was expected and what was found."""


class Bundle:
    """A bundle of the project for one of the tasks of :data:`TASKS`, which the name of its folder ends in.

    Its configurations are programs: open bundles only from people you trust. Its weights are not: they are read
    without running anything, and shared ones are compared with their hash in ``large_files.yml`` before.

    The ``overrides`` take the place of the values of keys of ``inference.json``, ``weights`` among them.

    Raises:
        BundleError: when it cannot be used, or has no weights.
        ValueError: see :func:`endofm_monai.utils.check_settings`.
    """

    def __init__(self, path: PathLike, **overrides: Any) -> None:
        self.path = Path(os.path.abspath(path))  # a link's own, as its target may have another name
        self.configs = self.path / "configs"
        self.name = self.path.name
        self.task = self.name.rpartition("_")[2]
        if self.task not in TASKS:
            raise BundleError(f"{self.path}: the folder's name must end in one of {', '.join(TASKS)}.")
        metadata = self._read("metadata.json")
        self.version = str(metadata.get("version"))
        if self.version.split(".")[0] != endofm_monai.__version__.split(".")[0]:
            raise BundleError(
                f"{self.configs / 'metadata.json'}: `version` is {self.version}, but the installed package "
                f"is {endofm_monai.__version__}, which reads bundles of the same first number only."
            )
        self.description = str(metadata.get("description", self.name))
        self.shared_weights = [self.path / "models" / name for name in ("model.pt", "model.safetensors")]
        self.trained_weights = self.path / "models" / "monai_label" / "model.pt"
        self._named_weights = [Path(overrides["weights"])] if "weights" in overrides else []
        in_use = filter(Path.is_file, [*self._named_weights, *self.shared_weights])
        self.settings = released_settings(self.path, next(in_use, None))
        self._parser = ConfigParser({**self._read("inference.json"), "bundle_root": literal(str(self.path))})
        self._parser.update({**self.settings, **literal_texts(overrides)})
        check_settings(self._parser, self.configs)
        self.labels = self._labels(metadata)
        if self.weights is None:
            missing, *others = self._named_weights or self.shared_weights
            found = "is missing" + "".join(f" ({other.name} is, too)" for other in others)
            raise BundleError(f"{missing}: {found}, the bundle has no weights; train it, or name a file by `weights`.")

    @property
    def weights(self) -> Path | None:
        """The file in use: the one named, or what was trained here, else what came with the bundle, if anything did."""
        files = self._named_weights or [self.trained_weights, *self.shared_weights]
        return next((file for file in files if file.is_file()), None)

    def get(self, key: str) -> Any:
        """Build what stands under a key of ``inference.json``, once; a ``BundleError`` says why it cannot be."""
        try:
            return self._parser.get_parsed_content(key)
        except Exception as error:  # a configuration may raise anything
            reason = " ".join(str(cause_of(error)).split()).removesuffix(".")
            raise BundleError(f"{self.configs / 'inference.json'}: `{key}` cannot be built ({reason}).") from error

    def load_weights(self, network: nn.Module) -> LoadReport:
        """Check the weights in use and fill the network with them.

        Raises:
            WeightsError: when there are none, they are not those that were shared, or they do not fit.
        """
        weights = self.weights or self.shared_weights[0]
        self.check_weights(weights)
        backbone = self.get("backbone_weights") if "backbone_weights" in self._parser else None
        return load_published(network, weights, backbone=backbone)

    def check_weights(self, weights: Path) -> bool:
        """Compare a file with the bundle's ``large_files.yml``, or raise a ``WeightsError``; gives if it is listed."""
        listing = self.path / LARGE_FILES
        entries = read_large_files(self.path) if listing.is_file() else []
        entry = next((entry for entry in entries if (self.path / entry["path"]).resolve() == weights.resolve()), None)
        if entry is None:
            return False
        try:
            weights.open("rb").close()  # of a file that it cannot read, MONAI says that its hash is another
        except OSError as error:
            raise WeightsError(f"{weights}: cannot be read ({error.strerror}).") from error
        expected, kind = entry.get("hash_val"), entry.get("hash_type", "md5")
        if not check_hash(str(weights), expected, kind):
            found = f"is not the file that was shared: its {kind} is not {expected}, as in {listing.name}"
            raise WeightsError(f"{weights}: {found}. Nothing was loaded.")
        return True

    def _labels(self, metadata: dict[str, Any]) -> dict[str, int]:
        """Number of each class: a pixel's value, a box's label, or the place among the probabilities."""
        if self.task == "segmentation":
            try:
                channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
                return {name: int(index) for index, name in channels.items() if name != "background"}
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                file, key = self.configs / "metadata.json", "network_data_format::outputs::pred::channel_def"
                raise BundleError(f"{file}: `{key}` must name the channels by their numbers ({error!r}).") from error
        first = 1 if self.task == "detection" else 0
        return {name: index for index, name in enumerate(as_class_names(self.get("class_names")), start=first)}

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return read_json(self.configs / name, dict)
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.configs / name}: is not a readable configuration ({error}).") from error


def read_large_files(bundle: Path) -> list[dict[str, Any]]:
    """Entries of a bundle's ``large_files.yml``, with a ``path`` each, or a ``WeightsError``."""
    file = bundle / LARGE_FILES
    try:
        entries = ConfigParser.load_config_file(file)["large_files"]
        if all(isinstance(entry["path"], str) for entry in entries):
            return entries
        reason = "a `path` is no text"
    except Exception as error:  # YAML has errors of its own
        reason = " ".join(repr(error).split())
    raise WeightsError(f"{file}: must be a list `large_files` of files with `path` and hash ({reason}).")


def released_settings(bundle: Path, weights: Path | None) -> dict[str, Any]:
    """Give what a bundle's ``configs/released.json`` says, if ``weights`` are those that come with the project.

    That file describes their network, for all configurations of the bundle; weights of one's own, ``models/model.pt``,
    go before them.
    """
    file = bundle / "configs" / "released.json"
    is_released = weights is not None and weights.resolve() == (bundle / "models" / "model.safetensors").resolve()
    return read_json(file, dict) if is_released and file.is_file() else {}


def load_predictor(bundle: PathLike, device: str | torch.device = "cpu", **overrides: Any) -> Predictor:
    """Make the predictor of a bundle's folder, with the weights in use, on a device.

    The ``overrides`` are values of keys of its ``inference.json``: ``mode="online"``, ``mirror=True``, ...

    Raises:
        BundleError: see :class:`Bundle`.
        WeightsError: see :meth:`Bundle.load_weights`.

    Example::

        predictor = load_predictor("bundle/endofm_polyp_detection")
        for frame, answer in predictor("colonoscopy.mp4"):
            print(answer["box"], answer["label_scores"])
    """
    opened = Bundle(bundle, device=as_device(device), **overrides)
    predictor = opened.get("predictor")
    opened.load_weights(predictor.network)
    predictor.network.eval()  # for good: threads that ask for frames at once would change its mode for each other
    return predictor


def find_bundles(folder: PathLike, names: str = "all") -> list[Path]:
    """Find bundles in a folder, by names that are separated by commas, or ``"all"`` of a task of :data:`TASKS`."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise BundleError(f"{root}: `bundles_dir` is not an existing folder.")
    if names.strip() == "all":
        bundles = sorted(path.parents[1] for path in root.glob("*/configs/inference.json"))
        return [path for path in bundles if path.name.endswith(TASKS)]
    wanted = [root / name.strip() for name in names.split(",") if name.strip()]
    if missing := [path for path in wanted if path.parent != root or not path.is_dir()]:
        raise BundleError(f"`models`: {missing[0].name} is no folder in {root}.")
    return wanted


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, run by ONNX Runtime in float32, where a bundle expects its PyTorch network.

    The file has one input and one output; see ``scripts/export_bundle.py``. It runs on CUDA where there is one.
    """

    def __init__(self, path: PathLike) -> None:
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
        content = torch.tensor(list(bytes.fromhex(sha256([path]))), dtype=torch.uint8)
        self.register_buffer("content", content)  # the weights are within: its state tells them from others
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # tells others the device, and moves with `to`

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the file gives for clips ``(B, 3, T, H, W)``, on their device."""
        (expected,) = self.session.get_inputs()
        if any(isinstance(size, int) and size != given for size, given in zip(expected.shape, x.shape, strict=True)):
            raise ValueError(f"{self.path}: takes clips of shape {expected.shape}, but got {list(x.shape)}.")
        (output,) = self.session.run(None, {expected.name: x.detach().float().cpu().numpy()})
        return torch.from_numpy(output).to(x.device)


class OnnxDetector(OnnxNetwork):
    """A detector in an ONNX file, for a :class:`endofm_monai.inferers.DetectionPredictor`.

    The file holds both stages in one graph, so what is kept of a frame is the frame itself, and it is encoded with
    every key frame that it supports: same detections, at ``1 + num_supports`` times the work of the PyTorch network.
    """

    @property
    def head(self) -> "OnnxDetector":
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
