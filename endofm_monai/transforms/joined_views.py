# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from endofm_monai.transforms.color import RGB_LUMA, blur_weights
from endofm_monai.transforms.geometry import interpolate_to_square
from endofm_monai.transforms.views import RandAugmentViews


def augment_batch(augment: RandAugmentViews, clips: Sequence[torch.Tensor], seeds: Sequence[int]) -> list[torch.Tensor]:
    """Views ``(B, 3, T, S, S)`` of B clips with a seed each: but for rounding, what ``augment`` makes of each clip.

    A GPU would wait for Python, which launches some 280 small operations a clip for the views of the published
    pre-training. So only crops are made one by one; all else is a few products for all frames of a size together. On a
    CPU that is more work: workers make views clip by clip, as those of other kinds or with jitter of the hue are here.
    """
    if type(augment) is not RandAugmentViews or augment.hue:
        made = [augment.set_random_state(seed=int(seed))(clip) for clip, seed in zip(clips, seeds, strict=True)]
        return [torch.stack(views) for views in zip(*made, strict=True)]
    plan = list(augment.views)
    crops: list[list[torch.Tensor]] = [[] for _ in plan]  # frames (T, 3, S, S) of each view
    draws: list[list[np.ndarray]] = [[] for _ in plan]  # of each of these frames
    for clip, seed in zip(clips, seeds, strict=True):
        augment.set_random_state(seed=int(seed))
        for number, part in enumerate(augment.split(clip)):
            chain: list[Any] = augment.transforms[number]
            for transform in chain:
                transform.randomize(part)
            cut = chain[0].cut(part).transpose(0, 1).float()
            crops[number].append(interpolate_to_square(cut, plan[number].size))
            draws[number] += [_numbers(augment, chain, 1 if clip.is_floating_point() else 255)] * len(cut)
    views = [torch.empty(0)] * len(plan)
    for size in {view.size for view in plan}:
        alike = [number for number, view in enumerate(plan) if view.size == size]
        frames = torch.cat([crop for number in alike for crop in crops[number]])
        frames = _finish(frames, np.stack([draw for number in alike for draw in draws[number]]))
        for number, part in zip(alike, frames.split([len(draws[number]) for number in alike]), strict=True):
            views[number] = part.unflatten(0, (len(clips), -1)).transpose(1, 2)
    return views


def _numbers(augment: RandAugmentViews, chain: Sequence[Any], white: int) -> np.ndarray:
    """What a view drew, ``(36,)``, of which :func:`_finish` makes use, if its values reach to ``white``."""
    _, flip, jitter, gray, blur, *solarize = chain
    mean, std = np.array(augment.normalize.mean), np.array(augment.normalize.std)
    pixel_matrix, mean_matrix = jitter.matrices()
    gray_matrix = np.tile(RGB_LUMA, (3, 1)) if gray._do_transform else np.eye(3)
    # with x normalized to y, 1 - x is normalized to this less y
    inverse = (1 - 2 * mean) / std if any(one._do_transform for one in solarize) else np.full(3, math.inf)
    sigma = blur.drawn_sigma if blur._do_transform else 1e-3  # pixels: each is left alone
    matrices = (pixel_matrix / white, mean_matrix / white, gray_matrix / std[:, None])
    numbers = [*map(np.ravel, matrices), -mean / std, inverse, [white, sigma, flip._do_transform]]
    return np.concatenate(numbers, dtype=np.float32)


def _finish(frames: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
    """Clip, mirror, color, blur, solarize and normalize frames ``(N, 3, S, S)`` by the numbers of each, ``(N, 36)``."""
    numbers = torch.from_numpy(draws).to(frames.device, non_blocking=True)
    pixel, mean, gray = numbers[:, :27].unflatten(1, (3, 3, 3)).unbind(1)
    offset, inverse = numbers[:, 27:33].unflatten(1, (2, 3, 1)).unbind(1)
    white, sigma, flip = numbers[:, 33:].unsqueeze(2).unbind(1)
    size = frames.shape[-1]
    position = torch.arange(size, dtype=frames.dtype, device=frames.device)

    colors = frames.flatten(2).clamp_(min=0).clamp_(max=white.unsqueeze(2))
    colors = torch.baddbmm(mean @ colors.mean(2, keepdim=True), pixel, colors).clamp_(0, 1)
    colors = torch.baddbmm(offset, gray, colors)
    columns = blur_weights(position.lerp(size - 1 - position, flip), sigma.unsqueeze(2)).transpose(1, 2)
    blurred = (colors.view(len(frames), 3 * size, size) @ columns).view(frames.shape)
    blurred = blur_weights(position.expand(len(frames), 1, size), sigma.view(-1, 1, 1, 1)) @ blurred
    return torch.minimum(blurred, inverse.unsqueeze(3) - blurred)
