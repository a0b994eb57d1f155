# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from anatomy import Colon, grow_colon, sample_map
from endoscope import Endoscope, Pose, drift, inspect, unit

FAR = 6.0  # no light comes back from farther away
RIM = 0.12  # width over which a polyp passes into the wall
BLOCK = 4  # side in pixels of the cones that are traced before the rays
SMALLEST = 0.002  # share of the frame below which a polyp counts as not visible


def render_video(
    rng: np.random.Generator, with_polyp: bool, frames: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a colon, an endoscope and its path, and film it; equal states of ``rng`` give equal videos.

    Returns:
        the video, uint8 RGB ``(T, H, W, 3)`` with T ``frames`` of a ``size`` in multiples of 4, and the visible part of
        the polyp, bool ``(T, H, W)``, which is seen in half of the frames at least.
    """
    while True:
        colon, endoscope = grow_colon(rng, with_polyp), Endoscope(rng, size)
        shots = [film(colon, endoscope, pose) for pose in inspect(rng, colon, frames)]
        masks = np.stack([mask for _, mask in shots])
        if not with_polyp or masks.any((1, 2)).mean() >= 0.5:
            break
    mist = np.clip(0.04 + 0.05 * drift(rng, frames), 0, 0.2).astype(np.float32)
    video = np.stack([endoscope.develop(shot[0], m) for shot, m in zip(shots, mist, strict=True)])
    return video, masks


def film(colon: Colon, endoscope: Endoscope, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Trace a frame: its radiance, float32 ``(3, H, W)``, and the mask of the polyp, bool ``(H, W)``."""
    height, width = endoscope.inside.shape
    rays = pose.axes @ endoscope.rays.reshape(3, -1)
    # a cone around a block of rays first: they all start where the cone comes close to the surface
    blocks = height // BLOCK, width // BLOCK
    cones = unit(rays.reshape(3, blocks[0], BLOCK, blocks[1], BLOCK).mean((2, 4)).reshape(3, -1))
    start = march(colon, pose, cones, np.zeros(cones.shape[1], np.float32), BLOCK * endoscope.pixel)
    start = start.reshape(blocks).repeat(BLOCK, 0).repeat(BLOCK, 1).ravel()
    depth = march(colon, pose, rays, start, 0.1 * endoscope.pixel)
    radiance, mask = shade(colon, endoscope, pose, rays, depth)
    mask = mask.reshape(height, width) & endoscope.inside
    return radiance.reshape(3, height, width), mask & (mask.mean() >= SMALLEST)


def surface(colon: Colon, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the distance ``(N,)`` from points ``(3, N)`` in the lumen to the surface, and the polyp's share of it."""
    wall = colon.distance(points)
    if colon.polyp is None:
        return wall, np.zeros_like(wall)
    polyp = colon.polyp.distance(points)
    share = np.clip(0.5 + 0.5 * (wall - polyp) / RIM, 0, 1)
    return wall + share * (polyp - wall) - RIM * share * (1 - share), share


def march(colon: Colon, pose: Pose, rays: np.ndarray, depth: np.ndarray, cone: float) -> np.ndarray:
    """Follow rays ``(3, N)`` from a depth ``(N,)`` to where the surface is within ``cone`` radians of them."""
    depth, active = depth.copy(), np.arange(len(depth))
    for _ in range(60):
        here = depth[active]
        # half: beside a fold, the distance across the lumen is longer than the true one
        step = 0.5 * surface(colon, pose.position[:, None] + rays.take(active, 1) * here)[0]
        on_the_way = (abs(step) > cone * here + 5e-4) & (here < FAR)
        active = active[on_the_way]
        if not len(active):
            break
        depth[active] += step[on_the_way]
    return depth


def shade(
    colon: Colon, endoscope: Endoscope, pose: Pose, rays: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Light the points at ``depth`` along ``rays``: radiance ``(3, N)``, and which of them are polyp ``(N,)``."""
    points = pose.position[:, None] + rays * depth
    distance, polyp = surface(colon, points)
    span = 0.006 + endoscope.pixel * depth  # the relief that a pixel can resolve
    ahead = [surface(colon, points + span * axis[:, None])[0] for axis in np.eye(3, dtype=np.float32)]
    normal = unit(np.stack(ahead) - distance + 1e-9)
    row, column, _ = colon.coordinates(points)
    albedo = sample_map(colon.albedo, row, column)
    if colon.polyp is not None:
        albedo += polyp * (colon.polyp.color(points) - albedo)
    radiance = 0.1 * albedo**2 / (1 + depth**2)  # light that the walls throw at each other
    for side in (-1, 1):
        to_lamp = (pose.position + side * endoscope.lamps * pose.axes[:, 0])[:, None] - points
        falloff = 1 / ((to_lamp**2).sum(0) + 0.02)
        to_lamp = unit(to_lamp)
        # light enters the mucosa and leaves it beside, so that grazing light is not dark
        diffuse = (np.clip((normal * to_lamp).sum(0), 0, 1) + 0.45) / 1.45
        gloss = np.clip((normal * unit(to_lamp - rays)).sum(0), 0, 1) ** 350
        radiance += (albedo * diffuse + 1.2 * gloss) * falloff
    lit = depth < FAR
    return radiance * lit, (polyp > 0.5) & lit
