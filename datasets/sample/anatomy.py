# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

# the unit of length is the mean radius of the lumen; the maps of the wall have one row a step in z, one column an angle
LENGTH = 9.0
TEXELS = 80  # a unit of length
ROWS = round(LENGTH * TEXELS)
COLUMNS = round(2 * np.pi * TEXELS)

# linear RGB albedo of the mucosa as different devices show it, and of polyps as a multiple of it
MUCOSA = np.array([[0.70, 0.27, 0.13], [0.68, 0.33, 0.15], [0.62, 0.30, 0.20], [0.70, 0.22, 0.13], [0.58, 0.36, 0.20]])
POLYP_TINT = np.array([[0.95, 0.42, 0.70], [0.84, 0.36, 0.58], [1.05, 0.50, 0.80]])
STOOL = np.array([0.60, 0.38, 0.06])


@dataclass(frozen=True)
class Polyp:
    """A lobed ellipsoid that sits in the wall."""

    center: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3): rows are the unit directions of its radii, along the wall twice, then into the lumen
    radii: np.ndarray  # (3,)
    lobes: np.ndarray  # (2, 3): wave numbers and phases of the waves that shape and mark its surface
    albedo: np.ndarray  # linear RGB, (3,)

    def local(self, points: np.ndarray) -> np.ndarray:
        """Give points ``(3, N)`` in the frame of the ellipsoid, in which it is the unit sphere."""
        return (self.axes @ (points - self.center[:, None])) / self.radii[:, None]

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Give the signed distance ``(N,)`` to the surface, positive outside, to first order."""
        local = self.local(points)
        waves = np.sin(self.lobes[0, :, None] * local + self.lobes[1, :, None]).sum(0)
        return (np.sqrt((local**2).sum(0)) - 1 - 0.05 * waves) * self.radii.min()

    def color(self, points: np.ndarray) -> np.ndarray:
        """Give the albedo ``(3, N)`` with a gyroid pattern, which resembles the pits of an adenoma."""
        x, y, z = 1.8 * self.lobes[0, :, None] * self.local(points) + self.lobes[1, :, None]
        pits = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
        return self.albedo[:, None] * (1 + 0.25 * pits)


@dataclass(frozen=True)
class Colon:
    """A curved tube along z: maps of its wall, its center line, and at most one polyp."""

    polyp: Polyp | None
    radius: np.ndarray  # distance from the center line to the wall, float32 (ROWS, COLUMNS)
    albedo: np.ndarray  # linear RGB of the wall, float32 (3, ROWS, COLUMNS)
    center: np.ndarray  # x and y of the center line, float32 (2, ROWS)
    target: np.ndarray  # (3,): the point of the wall that the endoscope will inspect; there sits the polyp, if any

    def middle(self, z: np.ndarray) -> np.ndarray:
        """Give the points ``(3, N)`` of the center line at ``z``."""
        return np.stack([*(np.interp(z * TEXELS, np.arange(ROWS), line) for line in self.center), z])

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the row and the column in the maps and the distance from the center line, each ``(N,)``."""
        row = np.clip(points[2] * TEXELS, 0, ROWS - 2)
        above = row.astype(np.int32)
        part = row - np.floor(row)
        x, y = (
            p - c.take(above) * (1 - part) - c.take(above + 1) * part for p, c in zip(points, self.center, strict=False)
        )
        return row, (np.arctan2(y, x) / (2 * np.pi) + 0.5) * COLUMNS, np.sqrt(x * x + y * y)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Give the distance ``(N,)`` from points in the lumen to the wall, measured across the lumen."""
        row, column, across = self.coordinates(points)
        return sample_map(self.radius, row, column) - across


def sample_map(values: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Read a map ``(..., ROWS, COLUMNS)`` between its texels, ``(..., N)``; columns wrap around."""
    flat = values.reshape(*values.shape[:-2], -1)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, along = row - np.floor(row), column - np.floor(column)
    left %= COLUMNS
    right = (left + 1) % COLUMNS
    top *= COLUMNS
    bottom = top + COLUMNS
    upper = flat.take(top + left, -1) * (1 - along) + flat.take(top + right, -1) * along
    lower = flat.take(bottom + left, -1) * (1 - along) + flat.take(bottom + right, -1) * along
    return upper * (1 - down) + lower * down


def grow_colon(rng: np.random.Generator, with_polyp: bool) -> Colon:
    """Draw a random colon, which has the same distribution with and without a polyp but for the polyp itself."""
    z = np.arange(ROWS)[:, None] / TEXELS
    angle = np.arange(COLUMNS) / COLUMNS * 2 * np.pi - np.pi
    bend, pace, phase = (rng.uniform(low, high, (2, 2, 1)) for low, high in ((0.15, 0.5), (0.4, 0.9), (0, 2 * np.pi)))
    center = (bend * np.sin(pace * z[:, 0] + phase)).sum(0)

    spot_z, spot_angle = rng.uniform(3.6, 4.2), rng.uniform(-np.pi, np.pi)
    from_spot = np.hypot(z - spot_z, np.angle(np.exp(1j * (angle - spot_angle))))
    albedo, residue = mucosa(rng)
    radius = 1 + 0.07 * np.cos(3 * angle + rng.uniform(0, 2 * np.pi)) + 0.07 * noise(rng, 0.4)
    # folds are lower at the inspected spot, or they would hide a polyp too often
    radius -= folds(rng, z, angle) * (1 - 0.8 * np.exp(-((from_spot / 0.5) ** 2)))
    radius += 0.003 * noise(rng, 0.06) + 0.0015 * noise(rng, 0.03) - 0.03 * residue

    row, column = np.unravel_index(from_spot.argmin(), from_spot.shape)
    outward = np.array([np.cos(spot_angle), np.sin(spot_angle), 0.0])
    target = np.array([*center[:, row], spot_z]) + radius[row, column] * outward
    polyp = grow_polyp(rng, target, outward, albedo.mean((1, 2)))
    maps = (part.astype(np.float32) for part in (radius, albedo, center, target))
    return Colon(polyp if with_polyp else None, *maps)


def grow_polyp(rng: np.random.Generator, target: np.ndarray, outward: np.ndarray, wall: np.ndarray) -> Polyp:
    """Draw a sessile polyp at a point of the wall of the given mean albedo, as wide as 28 to 42 % of the lumen."""
    turn = rng.uniform(0, np.pi)
    around, along = np.array([-outward[1], outward[0], 0.0]), np.array([0.0, 0.0, 1.0])
    first, second = np.cos(turn) * around + np.sin(turn) * along, np.cos(turn) * along - np.sin(turn) * around
    radii = rng.uniform(0.28, 0.42) * np.array([1, rng.uniform(0.7, 1), rng.uniform(0.6, 1.1)])
    lobes = np.stack([rng.uniform(2, 7, 3), rng.uniform(0, 2 * np.pi, 3)])
    albedo = wall * rng.choice(POLYP_TINT) * rng.uniform(0.9, 1.05, 3)
    center = target - outward * radii[2] * rng.uniform(0, 0.4)
    parts = (center, np.stack([first, second, -outward]), radii, lobes, albedo)
    return Polyp(*(part.astype(np.float32) for part in parts))


def folds(rng: np.random.Generator, z: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Draw the height ``(ROWS, COLUMNS)`` of semilunar folds, each between two of the three muscle bands."""
    open_lumen = np.ones((ROWS, COLUMNS))
    band, position = rng.uniform(0, 2 * np.pi), 0.3
    while position < LENGTH:
        middle = band + 2 * np.pi / 3 * rng.integers(3) + rng.normal(0, 0.15)
        crest = position + 0.1 * np.sin(angle + rng.uniform(0, 6)) + 0.05 * np.sin(3 * angle + rng.uniform(0, 6))
        arc = (0.5 + 0.5 * np.cos(angle - middle)) ** rng.uniform(0.8, 3)
        profile = np.exp(-(((z - crest) / rng.uniform(0.09, 0.24)) ** 2))
        open_lumen *= 1 - rng.uniform(0.2, 0.55) * arc * profile
        position += rng.uniform(0.2, 0.6)
    return 1 - open_lumen


def mucosa(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the albedo ``(3, ROWS, COLUMNS)`` of the wall and the height 0..1 of the stool on it."""
    base = rng.choice(MUCOSA) * rng.uniform(0.92, 1.06, 3)
    mottling = 0.06 * noise(rng, 0.3) + 0.04 * noise(rng, 0.06)
    # red patches without relief occur in both classes, so that a red spot alone is no polyp
    redness = np.clip(noise(rng, 0.25) - 1.2, 0, 1) * rng.uniform(0, 0.7)
    blood = vessels(rng) * rng.uniform(0.4, 1.0)
    stool = np.clip(noise(rng, 0.1) - rng.uniform(2.4, 3.4), 0, 0.3) / 0.3
    albedo = np.multiply.outer(base, 1 + mottling)
    albedo *= 1 - np.multiply.outer([0.1, 0.5, 0.6], redness)
    albedo *= 1 - np.multiply.outer([0.25, 0.60, 0.60], blood)
    albedo += 0.9 * stool * (STOOL[:, None, None] - albedo)
    return np.clip(albedo, 0.02, 0.95), stool


def vessels(rng: np.random.Generator) -> np.ndarray:
    """Draw branching vessels, 0..1 ``(ROWS, COLUMNS)``; each branch is thinner than its stem."""
    widths = (1.6, 1.0, 0.7)
    lines = np.zeros((len(widths), ROWS, COLUMNS))
    tips = [(rng.uniform(0, ROWS), rng.uniform(0, COLUMNS), rng.uniform(0, 2 * np.pi), 0) for _ in range(28)]
    while tips:
        row, column, heading, order = tips.pop()
        steps = round(rng.uniform(50, 170) / (1 + order))
        headings = heading + np.cumsum(rng.normal(0, 0.14, steps))
        rows, columns = row + np.cumsum(np.sin(headings)), column + np.cumsum(np.cos(headings))
        inside = (rows >= 0) & (rows < ROWS)
        lines[order][rows[inside].astype(int), columns[inside].astype(int) % COLUMNS] = 1
        if order + 1 < len(widths):
            for step in rng.integers(steps // 5, steps, 4):
                side = rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
                tips.append((rows[step], columns[step], headings[step] + side, order + 1))
    blurred = [w * gaussian_filter(line, w, mode=("nearest", "wrap")) for line, w in zip(lines, widths, strict=True)]
    return np.clip(2.4 * np.sum(blurred, 0), 0, 1)


def noise(rng: np.random.Generator, size: float) -> np.ndarray:
    """Draw smooth noise ``(ROWS, COLUMNS)`` of mean 0 and deviation 1 with details of about ``size`` and larger."""
    white = np.fft.rfft2(rng.standard_normal((ROWS, COLUMNS)))
    frequency = np.hypot(np.fft.fftfreq(ROWS)[:, None], np.fft.rfftfreq(COLUMNS)) * TEXELS
    smooth = np.fft.irfft2(white * np.exp(-((2 * frequency * size) ** 2)) / (frequency + 0.3), s=(ROWS, COLUMNS))
    return (smooth - smooth.mean()) / smooth.std()
