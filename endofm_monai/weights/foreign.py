# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks of the field, known by the names of their tensors: CLIP, whose names change, and those that do not fit."""

import re
from collections.abc import Mapping

import torch

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
    r"\.A_log, ": ("a Mamba (VideoMamba, EndoMamba, FPRL)", "of state-space layers instead of attention"),
    r"patch_embed\w*(\.\w+)*\.weight, 5$": (
        "a video ViT over tubelets (VideoMAE, V-JEPA)",
        "whose tokens span several frames and attend to all others at once",
    ),
    r"^lstm\.": (
        "EndoFM-LV's network for surgical phases (cholec80.pth)",
        "whose blocks stand on a ResNet-50 and under an LSTM, without patch embedding and position tables",
    ),
    r"\.token_mixer\.": ("a MetaFormer (SurgeNet's CAFormer)", "of stages, with convolutions in the first two"),
    r"^patch_embed1\.": ("a pyramid transformer (PVTv2)", "of stages with fewer and fewer tokens"),
    r"^stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw)\.": ("a ConvNeXt", "of convolutions without attention"),
    r"\.attention_biases, ": ("an EfficientViT (GSViT)", "of convolutions and attention in windows"),
    r"(^|\.)layer1\.0\.conv1\.": ("a ResNet (SurgVLP's image tower)", "of convolutions without attention"),
    r"^rope_embed\.": ("a DINOv3 ViT", "which turns queries and keys by their place and has no position table"),
}


def foreign_network(state: Mapping[str, torch.Tensor]) -> str:
    """Say what a file holds, and what keeps it from EndoFM, if its clean names are another network's; else nothing."""
    if any("blocks.0.temporal_attn." in name for name in state):  # as in EndoFM, whatever is around it
        return ""
    tensors = [f"{name}, {tensor.ndim}" for name, tensor in state.items()]
    for mark, (what, why) in _FOREIGN.items():
        if any(re.search(mark, tensor) for tensor in tensors):
            return f"{what}, {why}"
    return ""


def is_clip(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has the names of a CLIP's transformer, of images or of words."""
    return any(re.match(r"(?:visual\.)?transformer\.resblocks\.", key) for key in state)


def from_clip(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of an image tower, or of adapters for it, under timm's names, and the name of their layout."""
    towers = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    if towers and "class_embedding" not in towers:
        raise ValueError("holds a CLIP whose image tower is a convolutional network, not a ViT.")
    tower = towers or state
    if "conv1.weight" not in tower and not any(".adapter_" in key for key in tower):
        raise ValueError(
            "is the text tower of CLIP, which reads words and no pictures; the image tower has the keys `visual.*` in "
            "a file of the whole CLIP."
        )
    named = {_rename(key): value for key, value in tower.items()}
    renamed = {name: value[(None,) * _NEW_AXES.get(name, 0)] for name, value in named.items()}
    return renamed, "CLIP" if "conv1.weight" in tower else "ST-Adapter"


def _rename(key: str) -> str:
    prefix = next((prefix for prefix in _NAMES if key.startswith(prefix)), "")
    name = _NAMES.get(prefix, "") + key.removeprefix(prefix)
    for theirs, own in _PARTS.items():
        name = name.replace(theirs, own)
    return name
