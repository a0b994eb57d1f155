# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks import eval_mode
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from endofm_monai.inferers.detection import read_blocks
from endofm_monai.networks.nets import EndoFM
from endofm_monai.networks.nets.endofm import EndoFMFeatures
from endofm_monai.transforms import NormalizeClip, ResizeClip
from endofm_monai.utils import atomic_path

__all__ = ["cached_tokens", "encode_frames"]


def cached_tokens(
    items: Sequence[dict[str, Any]], backbone: EndoFM, size: int, cache: str | os.PathLike, block: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch and class tokens of all frames of videos, each frame seen alone; computed once and kept in a file.

    Args:
        items: items with ``image``: what :func:`endofm_monai.data.open_clip` opens.
        backbone: the frozen network.
        size: height and width that frames are resized to, in pixels.
        cache: ``.safetensors`` file; what is in it is taken as it is, so it must not outlive a change of the rest.
        block: frames at a time.

    Returns:
        float16 tokens ``(N, D, h, w)``, and class tokens ``(N, D)``, video after video.
    """
    if not Path(cache).exists():
        tokens, class_tokens = [], []
        for item in tqdm(items, "Encoding", unit="video", disable=None):
            for features in encode_frames(item["image"], backbone, size, block):
                tokens.append(features.token_map[:, :, 0].half())
                class_tokens.append(features.class_token.half())
        state = {"tokens": torch.cat(tokens).contiguous(), "class_tokens": torch.cat(class_tokens).contiguous()}
        with atomic_path(cache) as temporary:
            save_file(state, temporary)
    state = load_file(cache)
    return state["tokens"], state["class_tokens"]


def encode_frames(source: Any, backbone: EndoFM, size: int, block: int = 8) -> Iterator[EndoFMFeatures]:
    """What a backbone makes of the frames of a clip, each seen alone, ``block`` at a time; on the CPU.

    Args:
        source: what :func:`endofm_monai.data.open_clip` opens.
        backbone: the network.
        size: height and width that frames are resized to, in pixels.
        block: frames at a time.
    """
    resize, normalize = ResizeClip([size, size]), NormalizeClip()
    device = next(backbone.parameters()).device
    for frames in read_blocks(source, block):
        with eval_mode(backbone):
            clips = normalize(resize(frames.to(device))).transpose(0, 1).unsqueeze(2)  # (block, 3, 1, size, size)
            features = backbone.forward_features(clips)
        yield EndoFMFeatures(features.class_token.cpu(), features.token_map.cpu())
