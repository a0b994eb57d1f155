# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from endofm_monai.networks import unwrap
from endofm_monai.networks.nets import EndoFM
from endofm_monai.weights.image_vit import video_from_image
from endofm_monai.weights.layouts import (
    PublishedWeights,
    WeightsError,
    clean_names,
    describe_architecture,
    is_backbone_key,
    is_image_vit,
    read_weights,
)

__all__ = ["LoadReport", "copy_weights", "initialize_backbone", "load_published"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What a network took from a file of weights; ``str(report)`` is a one-line summary.

    Attributes:
        file: the file.
        layout: how the file is organized.
        part: which part of the file was taken, e.g. ``"teacher"``.
        matched: clean names of the tensors that were loaded.
        missing: those of the network that the file lacks; they keep their values.
        unexpected: those of the file that the network lacks.
        resized: those of ``matched`` that were resampled to the network's size.
        notes: what else was changed on the way.
    """

    file: Path
    layout: str
    part: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    resized: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        parts = [
            f"{self.file} ({self.layout}, {self.part}): loaded {len(self.matched)} of the network's {total} tensors"
        ]
        lists = {"missing": self.missing, "not used": self.unexpected, "resampled": self.resized}
        parts += [f"{name} {_count(keys)}" for name, keys in lists.items() if keys]
        return "; ".join([*parts, *self.notes])


def load_published(
    network: nn.Module, path: str | os.PathLike, which: str = "teacher", strict: bool = True
) -> LoadReport:
    """Load a published or own file of weights into a network, or into a part of one.

    Names and shapes are checked before anything is copied: after an error the network is as it was. Wrappers'
    prefixes and both namings of weight norm are understood on both sides. To fill only the backbone of a network
    with a head or a decoder, pass ``network.backbone``; a bare backbone leaves the rest of the file alone.

    A network whose published names differ from its own has an attribute ``published_prefixes``, which maps the
    prefixes of the file's clean names to its own, e.g. ``{"linear.": "head."}``; None stands for tensors that the
    network leaves out by design.

    Args:
        network: network to fill in place; its dtype and device stay.
        path: the file; layouts as in :func:`~endofm_monai.weights.layouts.read_weights`.
        which: ``"teacher"`` or ``"student"`` of a training checkpoint.
        strict: whether every tensor must be on both sides. If false, only the backbone must be complete: heads and
            decoders may differ in names, never in shapes. The report lists what did not match.

    Returns:
        what matched.

    Raises:
        WeightsError: when the file cannot be read safely, or does not fit; it names the file and the tensors, and the
            architectures if they are two.

    Example::

        >>> print(load_published(EndoFM.from_preset("base"), "endo_fm.pth"))
        endo_fm.pth (training checkpoint, teacher): loaded 247 of the network's 247 tensors; not used 8 (head.mlp.0...
    """
    return copy_weights(network, read_weights(path, which), strict)


def copy_weights(network: nn.Module, weights: PublishedWeights, strict: bool = True) -> LoadReport:
    """Copy ``weights`` into ``network``; see :func:`load_published`."""
    own = network.state_dict()
    names = clean_names(own, type(network).__name__)
    state, left_out = _rename(weights, getattr(unwrap(network), "published_prefixes", {}))

    matched = [name for name in names if name in state]
    missing = [name for name in names if name not in state]
    unexpected = [name for name in state if name not in names]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[names[name]].shape)}"
        for name in matched
        if state[name].shape != own[names[name]].shape
    ]
    is_backbone = all(map(is_backbone_key, names))
    backbone_differs = any(map(is_backbone_key, missing)) or (strict and any(map(is_backbone_key, unexpected)))
    rest_differs = strict and not is_backbone and (missing or unexpected)
    if not matched or reshaped or backbone_differs or rest_differs:
        problems = {"of another shape": reshaped, "missing": missing, "unexpected": unexpected}
        raise WeightsError(
            f"{weights.file} ({weights.layout}, {weights.part}): does not fit {type(unwrap(network)).__name__}: "
            + "; ".join(f"{name} {_count(keys)}" for name, keys in problems.items() if keys)
            + "."
            + _advice(
                state, {name: own[key] for name, key in names.items()}, backbone_differs or is_backbone, bool(reshaped)
            )
        )
    network.load_state_dict({names[name]: state[name] for name in matched}, strict=False)
    return LoadReport(
        weights.file,
        weights.layout,
        weights.part,
        tuple(matched),
        tuple(missing),
        (*unexpected, *left_out),
        weights.resized,
        weights.notes,
    )


def _rename(
    weights: PublishedWeights, prefixes: dict[str, str | None]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors under the network's names, where its published ones differ, and the names of those left out."""
    renamed: dict[str, str] = {}
    left_out = []
    for name in weights.state:
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        own = prefixes.get(prefix, "")
        if own is None:
            left_out.append(name)
        elif renamed.setdefault(own + name.removeprefix(prefix), name) != name:
            raise WeightsError(f"{weights.file}: several of its tensors have one name after the renaming {prefixes}.")
    state = {clean: weights.state[renamed[key]] for clean, key in clean_names(renamed, weights.file).items()}
    return state, tuple(left_out)


def _advice(
    state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], backbone_differs: bool, rest_reshaped: bool
) -> str:
    """What to look at, or nothing, when weights ``state`` do not fit a network with the tensors ``own``."""
    theirs, ours = describe_architecture(state), describe_architecture(own)
    if is_image_vit(state):
        return f" It is an image ViT ({theirs}): start from it with `initialize_backbone`."
    if theirs != ours:
        return f" The file seems to hold {theirs}; the network has {ours}."
    if backbone_differs:
        return ""
    advice = " The backbone fits: to fill only that, pass `network.backbone`, or in a bundle `backbone_weights`"
    return advice + ("." if rest_reshaped else "; or `strict=False`.")


def _count(names: Sequence[str], limit: int = 3) -> str:
    return f"{len(names)} ({', '.join(names[:limit])}{', ...' if len(names) > limit else ''})"


def initialize_backbone(
    network: nn.Module, weights: str | os.PathLike | None = None, which: str = "teacher"
) -> nn.Module:
    """Give a network's backbone its starting point: random, published or own weights, or an image ViT.

    The names in the file tell which one it is. What was loaded is logged.

    Args:
        network: an :class:`~endofm_monai.networks.nets.EndoFM`, or a network with one as its ``backbone``; filled in
            place, heads and decoders stay.
        weights: a file that :func:`~endofm_monai.weights.load_published` understands, or an image ViT in timm's layout
            (see :func:`~endofm_monai.weights.image_vit.video_from_image`). None keeps the random initialization.
        which: ``"teacher"`` or ``"student"`` of a training checkpoint.

    Returns:
        ``network``, so that a config can go on with it.

    Raises:
        TypeError: when ``network`` has no such backbone.
        WeightsError: when the file cannot be read safely or does not fit the backbone.

    Example::

        {"_target_": "initialize_backbone", "network": "@backbone", "weights": "@backbone_weights"}
    """
    if weights is None:
        logger.info("The backbone starts from random weights.")
        return network
    backbone = getattr(unwrap(network), "backbone", unwrap(network))
    if not isinstance(backbone, EndoFM):
        raise TypeError(f"`network` must be or have as its `backbone` an EndoFM, but got {type(network).__name__}.")
    published = read_weights(weights, which)
    if is_image_vit(published.state):
        published = video_from_image(published, backbone)
    logger.info("%s", copy_weights(backbone, published))
    return network
