# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch.nn.functional import interpolate
from tqdm import tqdm

from endofm_monai.data.readers.open_clip import open_clip
from endofm_monai.preparation.sources import PreparationSettings, SourceDataset
from endofm_monai.utils import atomic_path, sha256

__all__ = ["build_manifest", "draw_stats", "verify_manifest"]

_PACKAGES = ("endofm-monai", "av", "numpy", "pillow", "scikit-image")


def build_manifest(
    dataset: SourceDataset, entries: list[dict[str, Any]], dataset_dir: str, source: str, settings: PreparationSettings
) -> dict[str, Any]:
    """Describe a prepared dataset, so that a paper can cite it and somebody else can check it.

    Args:
        dataset: what is known about the dataset.
        entries: what came of each video.
        dataset_dir: folder that the paths of the clips are relative to, itself relative to the manifest.
        source: folder that the paths of the sources are relative to, itself relative to the manifest.
        settings: how the clips were made.

    Returns:
        the manifest: totals next to the published ones, versions, the command, and each video.
    """
    clips = [clip for entry in entries for clip in entry["clips"]]
    return {
        "name": dataset.name,
        "licence": dataset.licence,
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "settings": asdict(settings),
        "dataset_dir": dataset_dir,
        "source": source,
        "totals": {
            "videos": len(entries),
            "clips": len(clips),
            "frames": sum(clip["source"][1] - clip["source"][0] + 1 for clip in clips),
            "seconds": round(sum(entry["duration"] for entry in entries), 3),
            "modes": dict(sorted(Counter(entry["mode"] for entry in entries).items())),
            "sections": dict(sorted(Counter(entry["section"] for entry in entries for _ in entry["clips"]).items())),
        },
        "published": dict(dataset.published),
        "videos": entries,
    }


def verify_manifest(output: Path) -> None:
    """Compute the checksums of all sources and clips again.

    Args:
        output: folder with ``manifest.json``.

    Raises:
        FileNotFoundError: when there is no manifest.
        ValueError: when files are missing or have changed; the message lists them. Sources that are not named in the
            manifest cannot be checked.
    """
    path = output / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    different = []
    for entry in tqdm(manifest["videos"], f"verifying {manifest['name']}", unit="video"):
        expected = [(output / manifest["source"], entry["source"], entry["sha256"])] if entry["source"] else []
        for clip in entry["clips"]:
            if "sha256" in clip:
                paths = [clip["item"].get(key, []) for key in ("image", "mask")]
                files = [file for value in paths for file in ([value] if isinstance(value, str) else value)]
                expected.append((output / manifest["dataset_dir"], files, clip["sha256"]))
        for folder, files, digest in expected:
            missing = [file for file in files if not (folder / file).exists()]
            if missing:
                different.append(f"{folder / missing[0]} is missing")
            elif sha256(folder / file for file in files) != digest:
                different.append(f"{folder / files[0]} has changed" + " or a later frame or mask" * (len(files) > 1))
    if different:
        raise ValueError(f"{path}: {len(different)} differences:\n" + "\n".join(different))
    print(f"{path}: {len(manifest['videos'])} videos are as they were")


_TILE = 96  # pixels
_COLUMNS, _ROWS = 10, 6


def draw_stats(output: Path, dataset: SourceDataset, entries: list[dict[str, Any]], data: Path) -> None:
    """Draw ``stats.png``, how the clips are distributed, and ``contact_sheet.png``, frames of clips to look at.

    Args:
        output: folder to write to.
        dataset: what is known about the dataset.
        entries: what came of each video.
        data: folder that the paths of the clips are relative to.
    """
    clips = [(entry, clip) for entry in entries for clip in entry["clips"]]
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    seconds = [(clip["source"][1] - clip["source"][0] + 1) / entry["fps"] for entry, clip in clips]
    _histogram(panels[0], seconds, "length of a clip (s)")
    _bars(panels[1], Counter(f"{entry['fps']:.4g}" for entry in entries), "frames a second")
    _bars(panels[2], Counter(f"{entry['width']}x{entry['height']}" for entry in entries), "width x height")
    _bars(panels[3], _count_labels(dataset, clips), "class")
    _histogram(panels[4], [entry["brightness"] for entry in entries], "mean brightness (0-1)")
    _bars(panels[5], Counter(entry["section"] for entry, _ in clips), "section")
    figure.suptitle(f"{dataset.name}: {len(entries)} videos, {len(clips)} clips")
    with atomic_path(output / "stats.png") as temporary:
        figure.savefig(temporary, metadata={"Software": None})

    chosen = [clips[i][1] for i in np.linspace(0, len(clips) - 1, min(len(clips), _COLUMNS * _ROWS)).astype(int)]
    tiles = [_tile(clip["item"]["image"], data) for clip in chosen]
    tiles += [torch.zeros(3, _TILE, _TILE)] * (-len(tiles) % _COLUMNS)
    rows = [torch.cat(tiles[start : start + _COLUMNS], 2) for start in range(0, len(tiles), _COLUMNS)]
    sheet = torch.cat(rows, 1).permute(1, 2, 0).byte().numpy()
    with atomic_path(output / "contact_sheet.png") as temporary:
        Image.fromarray(sheet).save(temporary)


def _count_labels(dataset: SourceDataset, clips: list[tuple[dict[str, Any], dict[str, Any]]]) -> Counter[str]:
    """Count the clips by class, or the boxes where clips have none."""
    counts: Counter[str] = Counter()
    for _, clip in clips:
        item = clip["item"]
        labels = (
            [item["label"]] if "label" in item else [label for frame in item.get("box_label", []) for label in frame]
        )
        counts.update(dataset.labels.get(label, str(label)) for label in labels)
    return counts


def _histogram(panel: Axes, values: list[float], title: str) -> None:
    panel.hist(values, bins=30)
    panel.set_title(title)


def _bars(panel: Axes, counts: Counter[str], title: str) -> None:
    shown = counts.most_common(12)
    panel.barh([name for name, _ in shown][::-1], [count for _, count in shown][::-1])
    panel.set_title(title)


def _tile(image: str | list[str], data: Path) -> torch.Tensor:
    """Read the middle frame of a clip as ``(3, S, S)``, its middle square."""
    with open_clip(str(data / image) if isinstance(image, str) else [data / frame for frame in image]) as reader:
        frame = reader.read([reader.probe().frames // 2])[:, 0].float()
    side = min(frame.shape[1:])
    top, left = ((size - side) // 2 for size in frame.shape[1:])
    square = frame[None, :, top : top + side, left : left + side]
    return interpolate(square, size=(_TILE, _TILE), mode="area")[0]
