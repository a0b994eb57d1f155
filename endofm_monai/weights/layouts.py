# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import argparse
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endofm_monai.networks.nets.backbone import BACKBONE_PRESETS
from endofm_monai.utils import PathLike, open_zip
from endofm_monai.weights.files import BACKBONE_HASH, read_compact

# The training loops of Endo-FM, SVT and DINO save their arguments, and learning rates taken from a numpy schedule.
_SCALAR = np.float64(0).__reduce__()[0]  # named numpy.core.multiarray.scalar up to numpy 1
_SCALARS = [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
MAX_RATIO = 20  # of arrays to the archive that holds them; trained weights hardly get smaller
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_ALLOWED: list[Any] = [argparse.Namespace, np.dtype, type(np.dtype(np.float64)), *_SCALARS]
_BACKBONE_ROOTS = {"cls_token", "pos_embed", "time_embed", "patch_embed", "norm_pre", "blocks", "norm"}
_BACKBONE_ROOTS |= {"storage_tokens", "rope_embed"}
_WRAPPERS = re.compile(r"^(?:(?:module|backbone|model|_orig_mod)\.)+")
_WEIGHT_NORM = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}

# names of CLIP's image tower, which ST-Adapter's files have too, and those that they have here
_NAMES = {
    **{"class_embedding": "cls_token", "positional_embedding": "pos_embed", "conv1.": "patch_embed.proj."},
    **{"ln_pre.": "norm_pre.", "ln_post.": "norm.", "transformer.resblocks.": "blocks.", "fc.": "head."},
    "proj": "head.proj",  # from here on to the space that words share
}
_PARTS = {
    **{".ln_": ".norm", ".attn.in_proj_": ".attn.qkv.", ".attn.out_proj.": ".attn.proj."},
    **{".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2."},
}
_NEW_AXES = {"cls_token": 2, "pos_embed": 1}  # in front

# a mark in the "name, dimensions" of a tensor -> what has it, and what keeps it from EndoFM; wholes before their parts
_FOREIGN = {
    r"\.A_log, ": "a Mamba (VideoMamba, EndoMamba, FPRL), of state-space layers instead of attention",
    r"patch_embed\w*(\.\w+)*\.weight, 5$": (
        "a video ViT over tubelets (VideoMAE, V-JEPA), whose tokens span several frames and attend to all others at "
        "once"
    ),
    r"^lstm\.": (
        "EndoFM-LV's network for surgical phases (cholec80.pth), whose blocks stand on a ResNet-50 and under an LSTM, "
        "without patch embedding and position tables"
    ),
    r"\.token_mixer\.": "a MetaFormer (SurgeNet's CAFormer), of stages, with convolutions in the first two",
    r"^patch_embed1\.": "a pyramid transformer (PVTv2), of stages with fewer and fewer tokens",
    r"^stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw)\.": "a ConvNeXt, of convolutions without attention",
    r"\.attention_biases, ": "an EfficientViT (GSViT), of convolutions and attention in windows",
    r"(^|\.)layer1\.0\.conv1\.": "a ResNet (SurgVLP's image tower), of convolutions without attention",
    r"^rope_embed\.": "a DINOv3 ViT, which turns queries and keys by their place and has no position table",
}


class WeightsError(ValueError):
    """A file of weights that cannot be read safely, or that does not fit the network; the message names the file."""


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """The top level of a file of weights, tensors on the CPU, without running anything that the file contains.

    It is a ``.safetensors`` file, a numpy ``.npz`` archive, or (any other suffix) what ``torch.save`` wrote, of
    tensors, plain containers, ``argparse.Namespace`` and numpy's float64 scalars; tensors are mapped, not read.

    Raises:
        WeightsError: when the file is missing, damaged, holds no dictionary, or needs other Python objects.
    """
    path = Path(path)
    if not path.is_file():
        settings = path.parent.parent / "configs" / "released.json"
        has_released = settings.is_file() and path.with_name("model.safetensors").is_file()
        hint = f" For model.safetensors beside it add {settings} to the configurations." if has_released else ""
        raise WeightsError(f"{path}: there is no such file of weights.{hint}")
    try:
        content = _read(path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file makes the parsers raise nearly anything
        if match := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path}: needs the Python object {match[1]}, which a file of weights may not run; nothing was loaded. "
                "Ask its author for the plain tensors (`torch.save(network.state_dict(), ...)` or safetensors)."
            ) from error
        is_named = isinstance(error, ValueError) and str(path) in str(error)
        if is_named and path.suffix == ".safetensors":  # whose file is whole, but not its other half
            raise WeightsError(f"{error}.") from error
        reason = str(error) if is_named else type(error).__name__
        raise WeightsError(f"{path}: cannot be read: damaged, incomplete or no weights ({reason}).") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: must hold a dictionary of weights, but holds a {type(content).__name__}.")
    return {str(key): value for key, value in content.items()}


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return read_compact(path)
    if path.suffix == ".npz":
        with open_zip(path, MAX_RATIO), np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    if is_zip := zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise WeightsError(
                f"{path}: is a TorchScript program (as OpenAI's files of CLIP), which would be run to read it; if you "
                "trust it, save its weights: torch.save(torch.jit.load(FILE, 'cpu').state_dict(), 'clip.pt')."
            )
    with torch.serialization.safe_globals(_ALLOWED):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def is_backbone_key(key: str) -> bool:
    """Whether the clean ``key`` names a tensor of the video or image transformer, not of a head or a decoder."""
    return key.partition(".")[0] in _BACKBONE_ROOTS


def is_adapter_key(key: str) -> bool:
    """Whether the clean ``key`` names a tensor of an adapter."""
    return ".adapter_pre_" in key


def is_image_vit(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether ``state`` (clean keys) is a transformer without temporal attention."""
    return "blocks.0.attn.qkv.weight" in state and not any(".temporal_attn." in key for key in state)


def describe_architecture(state: Mapping[str, torch.Tensor]) -> str:
    """What the shapes in ``state`` (clean keys) tell of the transformer, e.g. ``"embed_dim 768, depth 12, ..."``.

    Where a preset has this width and depth, it is named. ``positions`` counts the entries of the position table, with
    the class token's; the heads leave no trace.
    """

    def size(key: str, axis: int) -> int:
        return state[key].shape[axis] if key in state and state[key].ndim > axis else 0

    blocks = [key for key in state if key.startswith("blocks.")]
    adapters = [state[key].numel() for key in blocks if is_adapter_key(key) and key.endswith(".conv.bias")]
    sizes = {
        "embed_dim": size("cls_token", 2),
        "depth": len({key.split(".")[1] for key in blocks if not is_adapter_key(key)}),
        "patch_size": size("patch_embed.proj.weight", 3),
        "positions": size("pos_embed", 1),
        "num_frames": size("time_embed", 1),
        "adapters": len(adapters),
        "adapter_dim": max(adapters, default=0),
    }
    presets = {(made["embed_dim"], made["depth"]): f" (preset {name})" for name, made in BACKBONE_PRESETS.items()}
    found = ", ".join(f"{name} {value}" for name, value in sizes.items() if value) or "no transformer"
    return found + presets.get((sizes["embed_dim"], sizes["depth"]), "")


def clean_key(key: str) -> str:
    """The name of a tensor without its wrappers' prefixes, with weight norm in torch's present names.

    Files and networks are compared by clean keys, so that it does not matter on which side a wrapper was.
    """
    return re.sub(r"\.weight_[gv]$", lambda old: _WEIGHT_NORM[old[0]], _WRAPPERS.sub("", key))


def clean_names(keys: Iterable[str], owner: object) -> dict[str, str]:
    """Map clean to original keys; two that become one are an error, which names their ``owner``."""
    names: dict[str, str] = {}
    for key in keys:
        if (first := names.setdefault(clean_key(key), key)) != key:
            raise WeightsError(f"{owner}: {first!r} and {key!r} are both {clean_key(key)!r} without their prefixes.")
    return names


@dataclass(frozen=True)
class PublishedWeights:
    """The tensors of one file under their clean names, and where in the file they were."""

    file: Path
    layout: str  # how the file is organized, in words
    part: str  # which part of the file was taken
    state: dict[str, torch.Tensor]  # by clean name, see `clean_key`
    notes: tuple[str, ...] = ()  # what was changed on the way
    backbone: str | None = None  # of adapters and a head: the SHA-256 of the backbone they need, "" if it is not named

    def __str__(self) -> str:
        return f"{self.file} ({self.layout}, {self.part})"


def read_weights(path: PathLike, which: str = "teacher") -> PublishedWeights:
    """Read the weights of any published layout, or of this project's own files.

    * training checkpoint: ``teacher`` and ``student`` (Endo-FM, SVT, DINO, this project), as dictionaries or as the
      first part of all names (a ``StudentTeacher``'s state dict);
    * fine-tuned classifier: ``backbone_state_dict`` with ``state_dict`` (``polypdiag.pth``);
    * nested state dict: ``state_dict``, ``model``, ``model_state`` or ``network`` (``kumc.pth``, TimeSformer, this
      project's ``checkpoint.pt`` of a task);
    * state dict: nothing but tensors (SVT's release, ``cvc.pth``, timm, ``model.pt``);
    * CLIP's image tower, alone or with its text tower, and ST-Adapter's files, under timm's names and ours;
    * adapters and head: a ``model.pt`` or ``checkpoint.pt`` that also has the SHA-256 of the backbone they need.

    ``which`` is ``"teacher"`` or ``"student"`` of a training checkpoint; other layouts hold one network, the teacher.

    Raises:
        WeightsError: when the file cannot be read safely, or holds no weights in one of these layouts.
    """
    if which not in ("teacher", "student"):
        raise ValueError(f"`which` must be 'teacher' or 'student', but got {which!r}.")
    file = Path(path)
    content = _nest_pair(read_checkpoint(file))
    layout, keys = _recognize(content, which)
    if which == "student" and layout != "training checkpoint":
        raise WeightsError(f"{file}: is a {layout} and has no student; take `which='teacher'`.")
    if absent := [key for key in keys if not isinstance(content.get(key), dict)]:
        raise WeightsError(f"{file}: is a {layout} without {absent[0]!r}; it holds {', '.join(list(content)[:5])}.")
    tensors: dict[str, Any] = {}
    for part in [content[key] for key in keys] or [content]:
        tensors |= part
    backbone = tensors.pop(BACKBONE_HASH, None)
    if backbone is not None and not re.fullmatch("[0-9a-f]{64}", str(backbone)):
        raise WeightsError(f"{file}: `{BACKBONE_HASH}` must be a SHA-256, 64 hexadecimal digits.")
    if foreign := [key for key, value in tensors.items() if not isinstance(value, torch.Tensor)]:
        raise WeightsError(f"{file}: is in no known layout; it holds {', '.join(foreign[:5])} besides tensors.")
    if not tensors:
        raise WeightsError(f"{file}: is a {layout} without any tensor.")
    state = {name: tensors[key] for name, key in clean_names(tensors, file).items()}
    for name, tensor in state.items():
        if problem := _problem(tensor):
            raise WeightsError(f"{file}: {name!r} {problem}, which no weight is; nothing was loaded.")
    if any(re.match(r"(visual\.)?transformer\.resblocks\.", key) for key in state):
        state, layout = _from_openai_clip(state, file)
        backbone = "" if layout == "ST-Adapter" else None
    return PublishedWeights(file, layout, " + ".join(keys) or "all", state, backbone=backbone)


def _problem(tensor: torch.Tensor) -> str:
    """Why a tensor can be no part of a network, if it cannot."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return f"is not stored number by number ({tensor.layout}, {tensor.device})"
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"claims the shape {tuple(tensor.shape)}, more than is stored"
    return "holds NaN or infinity" if tensor.dtype in _FLOATS and not bool(tensor.isfinite().all()) else ""


def check_types(state: Mapping[str, torch.Tensor], file: object) -> None:
    """Refuse integers, booleans and complex numbers, which would be turned into weights without a word."""
    for name, tensor in state.items():
        if tensor.dtype not in _FLOATS:
            raise WeightsError(f"{file}: {name!r} is of type {tensor.dtype}, but weights are of floating point.")


def _nest_pair(content: dict[str, Any]) -> dict[str, Any]:
    """Part the state dict of a student and its teacher in two; any other content stays as it is."""
    pair: dict[str, Any] = {"student": {}, "teacher": {}}
    for key, value in content.items():
        owner, dot, name = key.removeprefix("module.").partition(".")
        if owner not in pair or not dot:
            return content
        pair[owner][name] = value
    return pair


def _recognize(content: dict[str, Any], which: str) -> tuple[str, list[str]]:
    """The layout of a file's top level, and the keys below which the wanted state dicts are (none: the top level)."""
    if "teacher" in content or "student" in content:
        return "training checkpoint", [which]
    if "backbone_state_dict" in content:
        return "fine-tuned classifier", ["backbone_state_dict", "state_dict"]
    for key in ("state_dict", "model", "model_state", "network"):
        if isinstance(content.get(key), dict):
            return "nested state dict", [key]
    return "state dict", []


def foreign_network(state: Mapping[str, torch.Tensor]) -> str:
    """Say what a file holds, and what keeps it from EndoFM, if its clean names are another network's; else nothing."""
    if any("blocks.0.temporal_attn." in name for name in state):  # as in EndoFM, whatever is around it
        return ""
    tensors = [f"{name}, {tensor.ndim}" for name, tensor in state.items()]
    found = (what for mark, what in _FOREIGN.items() if any(re.search(mark, tensor) for tensor in tensors))
    return next(found, "")


def _from_openai_clip(state: Mapping[str, torch.Tensor], file: object) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a CLIP's image tower, or of adapters for it, under timm's names, and the name of their layout."""
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    if tower and "class_embedding" not in tower:
        raise WeightsError(f"{file}: holds a CLIP whose image tower is a convolutional network, not a ViT.")
    tower = tower or dict(state)
    if "conv1.weight" not in tower and not any(".adapter_" in key for key in tower):
        raise WeightsError(
            f"{file}: is the text tower of CLIP, which reads words and no pictures; the image tower has the keys "
            "`visual.*` in a file of the whole CLIP."
        )
    renamed = {}
    for key, value in tower.items():
        prefix, name = next((pair for pair in _NAMES.items() if key.startswith(pair[0])), ("", ""))
        name += key.removeprefix(prefix)
        for theirs, own in _PARTS.items():
            name = name.replace(theirs, own)
        renamed[name] = value[(None,) * _NEW_AXES.get(name, 0)]
    return renamed, "CLIP" if "conv1.weight" in tower else "ST-Adapter"
