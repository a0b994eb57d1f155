# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch.nn.functional import interpolate

from endofm_monai.data.opener import open_clip
from endofm_monai.data.preparation.source_video import SourceDataset
from endofm_monai.utils import atomic_path

__all__ = ["draw_stats"]

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
