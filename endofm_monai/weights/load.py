# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from endofm_monai.networks import unwrap
from endofm_monai.networks.blocks.divided_space_time import resample_table
from endofm_monai.networks.nets import EndoFM, FrameViT
from endofm_monai.utils import PathLike
from endofm_monai.weights.files import BACKBONE_HASH
from endofm_monai.weights.image_vit import variant_of, video_from_image
from endofm_monai.weights.layouts import (
    PublishedWeights,
    WeightsError,
    check_types,
    clean_names,
    describe_architecture,
    foreign_network,
    is_adapter_key,
    is_backbone_key,
    is_image_vit,
    read_weights,
)

logger = logging.getLogger(__name__)
Tensors = dict[str, torch.Tensor]
_TIME = "time_embed"


@dataclass(frozen=True)
class LoadReport:
    """What a network took from a file of weights, by clean names; ``str(report)`` is a one-line summary."""

    source: str  # the file, its layout, and the part that was taken
    matched: tuple[str, ...]  # what was loaded
    missing: tuple[str, ...]  # what the file lacks; it keeps its values
    unexpected: tuple[str, ...]  # what the network lacks
    notes: tuple[str, ...]  # what was changed on the way

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        loaded = f"{self.source}: loaded {len(self.matched)} of the network's {total} tensors"
        return "; ".join([loaded, *_counts({"missing": self.missing, "not used": self.unexpected}), *self.notes])


def _counts(lists: Mapping[str, Sequence[str]]) -> list[str]:
    """How many there are in each of the lists that are not empty, and the first of them."""
    shown = {kind: ", ".join([*names[:3], *["..."] * (len(names) > 3)]) for kind, names in lists.items() if names}
    return [f"{kind} {len(lists[kind])} ({names})" for kind, names in shown.items()]


def load_published(
    network: nn.Module,
    path: PathLike,
    which: str = "teacher",
    strict: bool = True,
    resample_time: bool = False,
    backbone: PathLike | None = None,
) -> LoadReport:
    """Load a published or own file of weights into a network, or into a part of one.

    Names and shapes are checked before anything is copied: after an error the network is as it was. To fill only the
    backbone of a network, pass ``network.backbone``; a bare backbone leaves the rest of the file alone.

    A network whose published names differ from its own has an attribute ``published_prefixes``, which maps the
    prefixes of the file's clean names to its own, e.g. ``{"linear.": "head."}``; None stands for tensors that the
    network leaves out by design.

    Args:
        network: network to fill in place; its dtype and device stay.
        path: the file, see :func:`~endofm_monai.weights.layouts.read_weights`.
        which: likewise.
        strict: whether every tensor must be on both sides. If false, only the backbone must be complete: heads and
            decoders may differ in names, never in shapes.
        resample_time: whether a time table of another length (32 frames in EndoFM-LV) is resampled as the network does
            for a clip of another length: each of its frames takes the nearest entry. Otherwise it is an error.
        backbone: for a file of adapters and head, the file of the backbone that they were trained on, which
            :func:`initialize_backbone` puts in place before. None if it is there; another one is an error in any case.

    Raises:
        WeightsError: when the file cannot be read safely, does not fit, or holds what is no finite number.
    """
    if backbone is not None:
        initialize_backbone(network, backbone, resample_time=True)
    return copy_weights(network, read_weights(path, which), strict, resample_time)


def copy_weights(
    network: nn.Module, weights: PublishedWeights, strict: bool = True, resample_time: bool = False
) -> LoadReport:
    """Copy ``weights`` into ``network``; see :func:`load_published`."""
    names = clean_names(network.state_dict(), type(network).__name__)
    own = dict(zip(names, network.state_dict().values(), strict=True))
    if resample_time and _differ_in_length(weights.state, own):
        table, (_, frames, _) = weights.state[_TIME], own[_TIME].shape
        resampled = resample_table(table, (table.shape[1], 1), (frames, 1))  # by the network's own rule
        note = f"time table of {table.shape[1]} frames resampled to {frames}, each with the nearest entry"
        weights = replace(weights, state={**weights.state, _TIME: resampled}, notes=(*weights.notes, note))
    weights = complete_weights(weights, own)
    state, left_out = _rename(weights, getattr(unwrap(network), "published_prefixes", {}))
    matched = [name for name in own if name in state]
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    sizes = {name: (tuple(state[name].shape), tuple(own[name].shape)) for name in matched}
    reshaped = [f"{name} {theirs} instead of {ours}" for name, (theirs, ours) in sizes.items() if theirs != ours]
    is_backbone = all(map(is_backbone_key, own))
    backbone_differs = any(map(is_backbone_key, missing)) or (strict and any(map(is_backbone_key, unexpected)))
    rest_differs = strict and not is_backbone and (missing or unexpected)
    if not matched or reshaped or backbone_differs or rest_differs:
        kind = type(unwrap(network)).__name__
        if "rope_embed.periods" not in own and (foreign := foreign_network(weights.state)):
            raise WeightsError(f"{weights.file}: holds {foreign}, so it does not fit {kind}.")
        problems = {"of another shape": reshaped, "missing": missing, "unexpected": unexpected}
        advice = _advice(state, own, backbone_differs or is_backbone, bool(reshaped))
        raise WeightsError(f"{weights}: does not fit {kind}: {'; '.join(_counts(problems))}.{advice}")
    check_types({name: state[name] for name in matched if own[name].is_floating_point()}, weights.file)
    network.load_state_dict({names[name]: state[name] for name in matched}, strict=False)
    return LoadReport(str(weights), tuple(matched), tuple(missing), (*unexpected, *left_out), weights.notes)


def _differ_in_length(state: Tensors, own: Tensors) -> bool:
    """Whether the time tables of a file and of a network are alike but for the number of their frames."""
    theirs, ours = (tuple(tensors[_TIME].shape) if _TIME in tensors else () for tensors in (state, own))
    return len(theirs) == len(ours) == 3 and theirs[::2] == ours[::2] and 0 < theirs[1] != ours[1]


def _rename(weights: PublishedWeights, prefixes: dict[str, str | None]) -> tuple[Tensors, list[str]]:
    """The tensors under the network's names, where its published ones differ, and the names of those left out."""
    renamed: dict[str, str] = {}
    left_out = []
    for name in weights.state:
        prefix, own = next((pair for pair in prefixes.items() if name.startswith(pair[0])), ("", ""))
        if own is None:
            left_out.append(name)
        elif renamed.setdefault(own + name.removeprefix(prefix), name) != name:
            raise WeightsError(f"{weights.file}: several of its tensors have one name after the renaming {prefixes}.")
    return {clean: weights.state[renamed[key]] for clean, key in clean_names(renamed, weights.file).items()}, left_out


def _advice(state: Tensors, own: Tensors, backbone_differs: bool, rest_reshaped: bool) -> str:
    """What to look at, or nothing, when weights ``state`` do not fit a network with the tensors ``own``."""
    theirs, ours = describe_architecture(state), describe_architecture(own)
    if is_image_vit(state) and not is_image_vit(own):
        return f" It is an image ViT ({theirs}): start from it with `initialize_backbone`."
    if _differ_in_length(state, own) and theirs.rpartition(", ")[0] == ours.rpartition(", ")[0]:
        frames = f"{state[_TIME].shape[1]} frames, the network's has {own[_TIME].shape[1]}"
        return f" Its time table has {frames}: `resample_time=True` (in a bundle `--resample_time True`) resamples it."
    if theirs != ours:
        return f" The file seems to hold {theirs}; the network has {ours}."
    if backbone_differs:
        return ""
    advice = " The backbone fits: to fill only that, pass `network.backbone`, or in a bundle `backbone_weights`"
    return advice + ("." if rest_reshaped else "; or `strict=False`.")


def initialize_backbone(
    network: nn.Module, weights: PathLike | None = None, which: str = "teacher", resample_time: bool = False
) -> nn.Module:
    """Fill a network's backbone (or a bare one) with its starting point, and give the network back, for configs.

    ``weights`` is a file that :func:`load_published` understands, or an image ViT of timm, CLIP or DINOv3 (see
    :func:`~endofm_monai.weights.image_vit.video_from_image`). Adapters that it lacks stay as they are, which change
    nothing while they are new. None keeps the random initialization. ``which`` and ``resample_time`` are those of
    :func:`load_published`.
    """
    if weights is None:
        logger.info("No `backbone_weights` are given: the backbone is made with random ones.")
        return network
    backbone = getattr(unwrap(network), "backbone", unwrap(network))
    if not isinstance(backbone, (EndoFM, FrameViT)):
        name = type(network).__name__
        raise TypeError(f"`network` must be or have as its `backbone` an EndoFM or a FrameViT, but got {name}.")
    published = read_weights(weights, which)
    is_dinov3 = isinstance(backbone, FrameViT) and variant_of(published.state) == "dinov3"
    if is_image_vit(published.state) and (is_dinov3 or not foreign_network(published.state)):
        published = video_from_image(published, backbone)
    adapters = {name: value for name, value in backbone.state_dict().items() if is_adapter_key(name)}
    published = replace(published, state={**adapters, **published.state})
    logger.info("%s", copy_weights(backbone, published, resample_time=resample_time))
    return network


def trained_state(part: Any) -> dict[str, Any]:
    """The state dict of a part of a training; without what is frozen in a backbone, whose SHA-256 stands in for it."""
    state = part.state_dict()
    if not isinstance(part, nn.Module) or not any(getattr(module, "frozen", False) for module in part.modules()):
        return state
    frozen = _backbone_names(state).values()
    rest = {key: value for key, value in state.items() if key not in frozen}
    return {**rest, BACKBONE_HASH: backbone_sha256(state)}


def load_trained_state(part: Any, state: Mapping[str, Any]) -> None:
    """Load what :func:`trained_state` gave into a part that has the same backbone; raises a ``WeightsError``.

    An optimizer keeps its settings, as its weight decay.
    """
    if isinstance(part, torch.optim.Optimizer):
        own_groups, groups = part.param_groups, state["param_groups"]
        if len(own_groups) != len(groups):
            found = f"{len(groups)} groups of parameters learned, and {len(own_groups)} do now"
            raise WeightsError(f"{found}; resume with the settings of what learns that it was made with")
        pairs = zip(own_groups, groups, strict=True)
        state = {**state, "param_groups": [{**own, "params": saved["params"]} for own, saved in pairs]}
    elif isinstance(part, nn.Module) and BACKBONE_HASH in state:
        own = part.state_dict()
        check_backbone(state[BACKBONE_HASH], backbone_sha256(own), "the checkpoint")
        state = {**own, **{key: value for key, value in state.items() if key != BACKBONE_HASH}}
    part.load_state_dict(state)


def complete_weights(weights: PublishedWeights, own: Mapping[str, torch.Tensor]) -> PublishedWeights:
    """Add the backbone in place, from a network's tensors ``own``, to weights that lack theirs, if it is that one."""
    if weights.backbone is None:
        return weights
    if weights.backbone:
        check_backbone(weights.backbone, backbone_sha256(own), str(weights.file))
    note = f"on the backbone in place, {weights.backbone[:12] or 'which it does not name'}"
    state = {name: own[name] for name in _backbone_names(own)}
    return replace(weights, state={**state, **weights.state}, notes=(*weights.notes, note), backbone=None)


def backbone_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and float32 values of a backbone's tensors, adapters left out, in any state dict."""
    digest = hashlib.sha256()
    for name, key in sorted(_backbone_names(state).items()):
        tensor = state[key].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().numpy().data)
    return digest.hexdigest()


def _backbone_names(state: Mapping[str, Any]) -> dict[str, str]:
    """Clean to original keys of a backbone's tensors without adapters."""
    names = clean_names(state, "the network")
    return {name: key for name, key in names.items() if is_backbone_key(name) and not is_adapter_key(name)}


def check_backbone(needed: str, found: str, owner: str) -> None:
    """Refuse another backbone than the ``owner`` needs, by their SHA-256, with a ``WeightsError``."""
    if needed != found:
        raise WeightsError(
            f"{owner}: needs the backbone with the SHA-256 {needed}, but found one with {found}; name the file that it "
            "was trained on by `backbone_weights`."
        )
