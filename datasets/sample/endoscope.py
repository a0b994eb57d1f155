# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import torch
import torch.nn.functional as F
from skimage.measure import label
from torchvision.transforms.v2 import functional as V

SMALLEST_POLYP = 0.002  # share of the frame below which a region of the mask counts as not visible
MOST_PATHS = 100  # that are drawn to show a polyp: of thin lines at the edge none may show enough


def film(
    rng: np.random.Generator, still: torch.Tensor, mask: torch.Tensor, frames: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Move a virtual endoscope over a still.

    Args:
        rng: draws path, light and device.
        still: float RGB image ``(3, h, w)``, 0 to 1.
        mask: float ``(1, h, w)``, 1 on the polyp, which will be visible in at least half of the frames, if
            some path shows it so, or all 0.
        frames: number of frames T.
        size: height H and width W of a frame.

    Returns:
        the video, uint8 ``(T, H, W, 3)``, and its masks, bool ``(T, H, W)``.
    """
    shrink = min(1.0, 1.6 * size[0] / min(still.shape[1:]))  # the path magnifies: no aliasing where frames are small
    still, mask = (V.resize(image, [round(shrink * side) for side in still.shape[1:]]) for image in (still, mask))
    x, y = np.abs(np.moveaxis(view_points(size), -1, 0)) * [[[size[0] / size[1]]], [[1]]]
    order = rng.choice([1, 2, 4])
    # a device's field of view: the frame with its corners cut off, straight or round
    border = torch.from_numpy(x**order + y**order < rng.uniform(1.6, 1.9))
    visible, least = torch.zeros(frames, *size, dtype=torch.bool), 0.5 * bool(mask.any())
    for _ in range(MOST_PATHS):
        grid = aim(fly(rng, mask[0], frames, size), still.shape[1:], size)
        moved = (move(mask, grid)[:, 0] > 0.5) & border
        for frame, region in enumerate(moved.numpy()):
            regions = label(region, connectivity=2)
            is_seen = np.bincount(regions.ravel()) >= SMALLEST_POLYP * region.size
            visible[frame] = torch.from_numpy(region & is_seen[regions])
        if visible.any(2).any(1).float().mean() >= least:
            break
    blurred = V.gaussian_blur(still, 2 * (min(still.shape[1:]) // 16) + 1, min(still.shape[1:]) / 60)
    video = light(rng, move(still, grid), move(blurred, grid)) * border
    return (255 * video).round().byte().permute(0, 2, 3, 1).numpy(), visible.numpy()


def wander(rng: np.random.Generator, frames: int, count: int = 1) -> np.ndarray:
    """Draw ``count`` smooth random walks ``(frames, count)``, about -1 to 1: slow moves and a little shake."""
    periods = rng.uniform([[60], [25], [9]], [[160], [50], [16]], (3, count))  # in frames
    strengths = np.array([[0.8], [0.3], [0.05]])
    phases = rng.uniform(0, 2 * np.pi, (3, count))
    return (strengths * np.sin(2 * np.pi * np.arange(frames)[:, None, None] / periods + phases)).sum(1)


def fly(rng: np.random.Generator, mask: torch.Tensor, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Draw the path: homographies ``(T, 3, 3)`` from a point of the frame to one of the still.

    Both are measured from the middle, in pixels of the still; in the frame, 1 is half of its height. The view looks for
    the middle of the ``mask`` ``(h, w)``, or of the still if there is no polyp, and never leaves the still.
    """
    still, frame = np.array(mask.shape[::-1]), np.array([size[1] / size[0], 1.0])  # x, y
    target = np.argwhere(mask.numpy() > 0.5)[:, ::-1]
    middle = target.mean(0) + 0.5 - still / 2 if len(target) else np.zeros(2)
    wish = middle + 0.3 * still * wander(rng, frames, 2)

    zoom = (still / 2 / frame).min() * 0.75 * np.exp(0.25 * wander(rng, frames)[:, 0])
    roll = rng.uniform(-0.4, 0.4) + 0.25 * wander(rng, frames)[:, 0]
    perspective, view, place = (np.tile(np.eye(3), (frames, 1, 1)) for _ in range(3))
    perspective[:, 2, :2] = 0.12 * wander(rng, frames, 2)
    view[:, :2, :2] = np.moveaxis(zoom * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]), -1, 0)

    corners = project(view @ perspective, frame * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]))
    fit = np.minimum(1, (still / np.ptp(corners, axis=1)).min(1))[:, None]
    view[:, :2] *= fit[:, None]
    low, high = fit * corners.min(1), fit * corners.max(1)
    room, rest = (still - (high - low)) / 2, -(low + high) / 2
    place[:, :2, 2] = rest + room * np.tanh((wish - rest) / np.maximum(room, 1))
    return place @ view @ perspective


def project(path: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points ``(N, 2)`` by homographies ``(T, 3, 3)``; gives ``(T, N, 2)``."""
    moved = np.pad(points, ((0, 0), (0, 1)), constant_values=1) @ path.swapaxes(1, 2)
    return moved[..., :2] / moved[..., 2:]


def view_points(size: tuple[int, int]) -> np.ndarray:
    """Give the middles of the pixels of a frame, ``(H, W, 2)`` x and y; 1 is half of its height."""
    height, width = size
    y, x = ((np.arange(side) + 0.5 - side / 2) * 2 / height for side in (height, width))
    return np.stack(np.meshgrid(x, y), -1)


def aim(path: np.ndarray, still: tuple[int, ...], size: tuple[int, int]) -> torch.Tensor:
    """Give where in a still of ``(h, w)`` each pixel looks, ``(T, H, W, 2)`` as ``grid_sample`` takes it."""
    places = project(path, view_points(size).reshape(-1, 2)) / (np.array(still[::-1]) / 2)
    return torch.from_numpy(places).float().unflatten(1, size)


def move(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Take ``image`` ``(C, h, w)`` at the places of ``grid`` ``(T, H, W, 2)``."""
    return F.grid_sample(image.expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=False)


def light(rng: np.random.Generator, video: torch.Tensor, blurred: torch.Tensor) -> torch.Tensor:
    """Light a moved still ``(T, 3, H, W)``, given also ``blurred``: focus, glints, lamp, exposure, color and grain."""
    frames, _, height, width = video.shape

    def walk(low: float, high: float) -> torch.Tensor:
        values = (low + high) / 2 + (high - low) / 2 * wander(rng, frames)
        return torch.from_numpy(values.clip(low, high)).float()[..., None, None]

    x, y = torch.from_numpy(view_points((height, width))).float().unbind(-1)
    distance = (x - walk(-0.3, 0.3)) ** 2 + (y - walk(-0.3, 0.3)) ** 2
    wet = (video - blurred).mean(1, keepdim=True).sub(0.02).relu() * 4 * torch.exp(-3 * distance) * walk(0, 1)
    sharp = walk(0.1, 1.2).clamp(max=1)
    video = sharp * video + (1 - sharp) * blurred + wet
    video = video * (walk(0.9, 1.15) / (1 + rng.uniform(0.1, 0.3) * distance))
    video = video * torch.from_numpy(rng.uniform(0.92, 1.08, (3, 1, 1))).float()
    grain = torch.from_numpy(rng.standard_normal((frames, 1, height, width), np.float32))
    return (video + rng.uniform(0.005, 0.015) * grain).clamp(0, 1)
