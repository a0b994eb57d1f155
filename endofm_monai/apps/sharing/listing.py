# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from endofm_monai.utils import atomic_path

__all__ = ["add_to_listing", "bundle_versions"]

LISTING = "model_info.json"


def add_to_listing(archive: str | os.PathLike, version: str) -> Path:
    """Add a bundle's zip to ``model_info.json`` beside it, in the form that the Model Zoo lists its bundles.

    Args:
        archive: the zip, named after the bundle.
        version: version of the bundle; its former entry is replaced.

    Returns:
        the listing.
    """
    archive = Path(archive)
    listing = archive.with_name(LISTING)
    entries = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else {}
    checksum = hashlib.sha1(archive.read_bytes()).hexdigest()  # the zoo's choice
    entries[f"{archive.stem}_v{version}"] = {"checksum": checksum, "source": archive.name}
    with atomic_path(listing) as temporary:
        temporary.write_text(json.dumps(dict(sorted(entries.items())), indent=4) + "\n", encoding="utf-8")
    return listing


def bundle_versions(folder: str | os.PathLike) -> dict[str, dict[str, str | list[str]]]:
    """Versions of the bundles that a folder's ``model_info.json`` lists, without network.

    Args:
        folder: where ``build_bundle`` wrote to, or a checkout's ``models`` folder of the Model Zoo.

    Returns:
        ``latest_version`` and ``all_versions`` of each bundle, as ``monai.bundle.get_bundle_versions`` gives them; but
        versions are compared as numbers.

    Raises:
        FileNotFoundError: when there is no listing.
    """
    versions: dict[str, list[str]] = {}
    for entry in json.loads((Path(folder) / LISTING).read_text(encoding="utf-8")):
        name, _, version = entry.rpartition("_v")
        versions.setdefault(name, []).append(version)
    for found in versions.values():
        found.sort(key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
    return {name: {"latest_version": found[-1], "all_versions": found} for name, found in versions.items()}
