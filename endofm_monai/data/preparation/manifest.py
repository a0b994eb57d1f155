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

from tqdm import tqdm

from endofm_monai.data.preparation.settings import PreparationSettings
from endofm_monai.data.preparation.source_video import SourceDataset
from endofm_monai.utils import sha256

__all__ = ["build_manifest", "verify_manifest"]

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
