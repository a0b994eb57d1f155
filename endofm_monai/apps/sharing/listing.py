# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from endofm_monai.utils import atomic_path, sha256

__all__ = ["add_to_listing", "bundle_versions", "check_large_files", "write_large_files"]


LARGE_FILES = "large_files.yml"


def write_large_files(folder: str | os.PathLike, weights_url: str | None = None) -> Path:
    """List the files in a bundle's ``models`` with their SHA-256, as MONAI's ``download_large_files`` reads it.

    Args:
        folder: the bundle's folder.
        weights_url: address of the folder that the files can be downloaded from. Without it the addresses are empty:
            the files must be there, and their hashes are checked all the same.

    Returns:
        the file.
    """
    folder = Path(folder)
    entries = [
        {
            "path": path.relative_to(folder).as_posix(),
            "url": f"{weights_url.rstrip('/')}/{path.name}" if weights_url else "",
            "hash_val": sha256([path]),
            "hash_type": "sha256",
        }
        for path in sorted((folder / "models").iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    listed = folder / LARGE_FILES
    listed.write_text(json.dumps({"large_files": entries}, indent=4) + "\n", encoding="utf-8")  # JSON is YAML
    return listed


def check_large_files(folder: str | os.PathLike) -> list[Path]:
    """Compare the files that a bundle's ``large_files.yml`` lists with their hashes; do so before you load them.

    Args:
        folder: the bundle's folder.

    Returns:
        the files.

    Raises:
        FileNotFoundError: when there is no list, or a file of it is missing.
        ValueError: when a path leads out of the folder, an entry has no SHA-256, or a file is not the listed one.
    """
    folder = Path(folder)
    if not (folder / LARGE_FILES).is_file():
        raise FileNotFoundError(f"{folder / LARGE_FILES}: is missing; build_bundle writes it.")
    entries: list[dict[str, Any]] = ConfigParser.load_config_file(folder / LARGE_FILES)["large_files"]
    checked = []
    for entry in entries:
        path = folder / entry["path"]
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder / LARGE_FILES}: the path {entry['path']} leads out of the bundle.")
        if entry.get("hash_type") != "sha256":
            raise ValueError(f"{folder / LARGE_FILES}: {entry['path']} has no hash of the type sha256.")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: is missing; {LARGE_FILES} lists it.")
        if (found := sha256([path])) != entry["hash_val"]:
            raise ValueError(f"{path}: is not the listed file: expected SHA-256 {entry['hash_val']}, found {found}.")
        checked.append(path)
    return checked


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
