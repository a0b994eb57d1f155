# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anatomy import Colon
from scipy.ndimage import gaussian_filter, gaussian_filter1d


@dataclass(frozen=True)
class Pose:
    """Where the tip of the endoscope is and how it is turned."""

    position: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3): columns are the unit directions of the picture's x, of its y and of the view


def inspect(rng: np.random.Generator, colon: Colon, frames: int) -> list[Pose]:
    """Approach the target of the colon, look at it and turn away; in half of the videos, the reverse.

    The path has the same distribution with and without a polyp, so that motion does not give the class away.
    """
    time = np.linspace(0, 1, frames)
    approach = ease(time / rng.uniform(0.75, 1.0))
    gap = 0.5 + rng.uniform(0.6, 1.1) * (1 - approach) + 0.05 * drift(rng, frames)
    outward = unit(colon.target[:, None] - colon.middle(colon.target[2:]))
    position = colon.middle(colon.target[2] - gap)
    position += outward * rng.uniform(-0.15, 0.15) + 0.06 * drift(rng, 3, frames)
    away = unit(colon.middle(position[2] + 1.6) - 0.9 * outward - position)
    there = unit(colon.target[:, None] - 0.1 * outward - position)
    attention = ease((time - rng.uniform(-0.05, 0.08)) / 0.2) * (1 - ease((time - rng.uniform(0.8, 0.9)) / 0.15))
    z = unit(away + attention * (there - away) + 0.13 * drift(rng, 3, frames))
    roll = rng.uniform(0, 2 * np.pi) + 0.3 * drift(rng, frames)
    x = unit(np.cross([np.cos(roll), np.sin(roll), 0 * roll], z, axis=0))
    axes = np.stack([x, np.cross(z, x, axis=0), z], 1)
    poses = [
        Pose(*pose)
        for pose in zip(position.astype(np.float32).T, axes.astype(np.float32).transpose(2, 0, 1), strict=True)
    ]
    return poses[::-1] if rng.random() < 0.5 else poses


def ease(x: np.ndarray) -> np.ndarray:
    """Go from 0 at 0 to 1 at 1 with a smooth start and end."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def drift(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw the slow wander of a hand along the last axis, of mean 0 and deviation 1."""
    sigma = 9  # frames
    white = rng.standard_normal((*shape[:-1], shape[-1] + 8 * sigma))
    return gaussian_filter1d(white, sigma)[..., 4 * sigma : -4 * sigma] * np.sqrt(2 * sigma * np.sqrt(np.pi))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors ``(3, ...)`` to length 1."""
    return vectors / np.sqrt((vectors**2).sum(0))


class Endoscope:
    """A fisheye lens, two lamps, a sensor and a black border, drawn at random: one device.

    Args:
        rng: source of the device's properties and of its sensor noise.
        size: height and width of a frame in pixels.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        x, y = np.meshgrid(*((2 * np.arange(n) + 1 - n) / height for n in (width, height)))  # -1..1 over the height
        r = np.hypot(x, y)
        edge_angle = np.deg2rad(rng.uniform(48, 58))
        sideways = np.sin(r * edge_angle) / np.maximum(r, 1e-6)
        # unit direction of every pixel in the frame of a pose, (3, H, W), and angle between neighboring rays
        self.rays = np.stack([x * sideways, y * sideways, np.cos(r * edge_angle)]).astype(np.float32)
        self.pixel = float(2 * edge_angle / height)
        x, y = abs(x) / (width / height * rng.uniform(0.84, 0.97)), abs(y) / rng.uniform(0.9, 0.98)
        borders = (x**8 + y**8 < 1, r < rng.uniform(1.1, 1.2), x + y < rng.uniform(1.55, 1.75))
        # pixels that the border leaves free, bool (H, W), and offset of the two lamps to both sides of the lens
        self.inside = (np.maximum(x, y) < 1) & borders[rng.integers(len(borders))]
        self.lamps = rng.uniform(0.04, 0.1)
        self._rng = rng
        self._window = gaussian_filter(self.inside.astype(np.float32), 0.5)
        self._vignette = (1 - rng.uniform(0.05, 0.25) * (r / r.max()) ** 2).astype(np.float32)
        self._gain = rng.uniform(0.9, 1.1, (3, 1, 1)).astype(np.float32)
        self._gamma = rng.uniform(0.65, 0.8)
        self._blur = rng.uniform(0.35, 0.7)
        self._grain = rng.uniform(0.008, 0.024)
        self._border = rng.uniform(0, 0.06)

    def develop(self, radiance: np.ndarray, mist: float) -> np.ndarray:
        """Turn linear light, float32 ``(3, H, W)``, into a picture with automatic exposure, uint8 RGB ``(H, W, 3)``.

        Mist on the lens scatters a share of the light, 0..1.
        """
        exposure = 1.1 / np.percentile(radiance.mean(0)[self.inside], 85)
        light = radiance * self._vignette * self._gain * exposure
        light += mist * (light[:, self.inside].mean(1)[:, None, None] - light)
        picture = gaussian_filter((1 - np.exp(-light)) ** self._gamma, (0, self._blur, self._blur))
        white = self._rng.standard_normal(picture.shape, np.float32)
        picture += gaussian_filter(white, (0, 0.5, 0.5)) * self._grain
        picture = picture * self._window + self._border * (1 - self._window)
        return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
