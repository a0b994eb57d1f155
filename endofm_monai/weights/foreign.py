# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks of the field that are no Endo-FM, known by the names of their tensors."""

import re
from collections.abc import Mapping

import torch

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
    """Say what a file holds, and what keeps it from EndoFM, if its names are another known network's; else nothing.

    Args:
        state: tensors by clean name, see :func:`~endofm_monai.weights.layouts.clean_key`.
    """
    if any("blocks.0.temporal_attn." in name for name in state):  # as in EndoFM, whatever is around it
        return ""
    tensors = [f"{name}, {tensor.ndim}" for name, tensor in state.items()]
    for mark, (what, why) in _FOREIGN.items():
        if any(re.search(mark, tensor) for tensor in tensors):
            return f"{what}, {why}"
    return ""
