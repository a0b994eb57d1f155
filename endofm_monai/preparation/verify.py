# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import platform
import shlex
import sys
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from tqdm import tqdm

from endofm_monai.preparation.index import frame_picture, paths_of
from endofm_monai.preparation.sources import PreparationSettings, SourceDataset
from endofm_monai.utils import atomic_path, read_json, sha256

_PACKAGES = ("endofm-monai", "av", "numpy", "pillow", "scikit-image")
_TILE, _COLUMNS, _ROWS = 96, 10, 6  # of the contact sheet; a tile's side in pixels


def build_manifest(
    dataset: SourceDataset, entries: list[dict[str, Any]], dataset_dir: str, source: str, settings: PreparationSettings
) -> dict[str, Any]:
    """Describe a prepared dataset by what came of each video; paths are relative to ``dataset_dir`` and ``source``."""
    clips = [(entry["section"], clip["source"]) for entry in entries for clip in entry["clips"]]
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
            "frames": sum(last - first + 1 for _, (first, last) in clips),
            "seconds": round(sum(entry["duration"] for entry in entries), 3),
            "modes": dict(sorted(Counter(entry["mode"] for entry in entries).items())),
            "sections": dict(sorted(Counter(section for section, _ in clips).items())),
        },
        "published": dict(dataset.published),
        "videos": entries,
    }


def verify_manifest(output: Path) -> None:
    """Compute the checksums of all sources and clips in ``output/manifest.json`` again; an error lists what differs."""
    path = output / "manifest.json"
    manifest = read_json(path, dict)
    different = []
    for entry in tqdm(manifest["videos"], f"verifying {manifest['name']}", unit="video"):
        expected = [(output / manifest["source"], entry["source"], entry["sha256"])] if entry["source"] else []
        clips = [clip for clip in entry["clips"] if "sha256" in clip]
        expected += [(output / manifest["dataset_dir"], paths_of(clip["item"]), clip["sha256"]) for clip in clips]
        for folder, files, digest in expected:
            if missing := [file for file in files if not (folder / file).exists()]:
                different.append(f"{folder / missing[0]} is missing")
            elif sha256(folder / file for file in files) != digest:
                different.append(f"{folder / files[0]} has changed" + " or a later frame or mask" * (len(files) > 1))
    if different:
        raise ValueError(f"{path}: {len(different)} differences:\n" + "\n".join(different))
    print(f"{path}: {len(manifest['videos'])} videos are as they were")


def draw_stats(output: Path, dataset: SourceDataset, entries: list[dict[str, Any]], data: Path) -> None:
    """Draw ``stats.png``, how the clips in ``data`` are distributed, and ``contact_sheet.png``, frames of them."""
    clips = [(entry, clip) for entry in entries for clip in entry["clips"]]
    items = [clip["item"] for _, clip in clips]
    labels = [[[item["label"]]] if "label" in item else item.get("box_label", []) for item in items]
    names = [dataset.labels.get(label, str(label)) for frames in labels for frame in frames for label in frame]
    panels: dict[str, list[float] | Counter[str]] = {
        "length of a clip (s)": [(clip["source"][1] - clip["source"][0] + 1) / entry["fps"] for entry, clip in clips],
        "frames a second": Counter(f"{entry['fps']:.4g}" for entry in entries),
        "width x height": Counter(f"{entry['width']}x{entry['height']}" for entry in entries),
        "class": Counter(names),
        "mean brightness (0-1)": [entry["brightness"] for entry in entries],
        "section": Counter(entry["section"] for entry, _ in clips),
    }
    figure = Figure(figsize=(12, 6), layout="constrained")
    for panel, (title, values) in zip(figure.subplots(2, 3).flat, panels.items(), strict=True):
        panel.set_title(title)
        if isinstance(values, Counter):
            shown = values.most_common(12)[::-1]
            panel.barh([name for name, _ in shown], [count for _, count in shown])
        else:
            panel.hist(values, bins=30)
    figure.suptitle(f"{dataset.name}: {len(entries)} videos, {len(clips)} clips")
    with atomic_path(output / "stats.png") as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    _draw_contact_sheet(output / "contact_sheet.png", items, data)


def _draw_contact_sheet(path: Path, items: list[dict[str, Any]], data: Path) -> None:
    chosen = np.linspace(0, len(items) - 1, min(len(items), _COLUMNS * _ROWS)).astype(int)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, -(-len(chosen) // _COLUMNS) * _TILE))
    for place, number in enumerate(chosen):
        image = items[number]["image"]
        picture = frame_picture(str(data / image) if isinstance(image, str) else [data / frame for frame in image])
        row, column = divmod(place, _COLUMNS)
        sheet.paste(ImageOps.fit(picture, (_TILE, _TILE), Image.Resampling.BOX), (column * _TILE, row * _TILE))
    with atomic_path(path) as temporary:
        sheet.save(temporary)
