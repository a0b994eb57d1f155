# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from monai.bundle import push_to_hf_hub
from monai.utils import optional_import

from endofm_monai.inferers.bundle import LARGE_FILES, read_large_files
from endofm_monai.utils import PathLike, read_json, sha256, write_json

_, has_hub = optional_import("huggingface_hub")

LISTING = "model_info.json"
FURTHER = {  # arguments of a push, of MONAI and of the hub
    *("token", "tag_as_latest_version", "commit_message", "commit_description", "create_pr", "revision"),
    *("allow_patterns", "ignore_patterns", "delete_patterns"),
}


def write_large_files(folder: Path, weights_url: str | None = None) -> None:
    """List the files in a bundle's ``models`` with their SHA-256, as MONAI's ``download_large_files`` reads it.

    Without ``weights_url``, the folder to download them from, the files must be there; hashes are checked all the same.
    """
    entries = []
    files = [path for path in (folder / "models").iterdir() if path.is_file() and not path.name.startswith(".")]
    for path in sorted(files):
        url = f"{weights_url.rstrip('/')}/{path.name}" if weights_url else ""
        hashed = {"hash_val": sha256([path]), "hash_type": "sha256"}
        entries.append({"path": f"models/{path.name}", "url": url, **hashed})
    write_json(folder / LARGE_FILES, {"large_files": entries}, indent=4)  # JSON is YAML


def check_large_files(folder: PathLike) -> list[Path]:
    """Compare the files that a bundle's ``large_files.yml`` lists with their hashes; do so before you load them."""
    folder, checked = Path(folder), []
    listed = folder / LARGE_FILES
    if not listed.is_file():
        raise FileNotFoundError(f"{listed}: is missing; build_bundle writes it.")
    for entry in read_large_files(folder):
        path = folder / entry["path"]  # perhaps a link into a store, as Hugging Face has them
        if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
            raise ValueError(f"{listed}: the path {entry['path']} leads out of the bundle.")
        if entry.get("hash_type") != "sha256":
            raise ValueError(f"{listed}: {entry['path']} has no hash of the type sha256.")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: is missing; {LARGE_FILES} lists it.")
        if (found := sha256([path])) != (expected := entry.get("hash_val")):
            raise ValueError(f"{path}: is not the listed file: expected SHA-256 {expected}, found {found}.")
        checked.append(path)
    return checked


def add_to_listing(archive: Path, version: str) -> None:
    """Put a bundle's zip in the place of a former one in ``model_info.json`` beside it, a list as the Model Zoo's."""
    listing = archive.with_name(LISTING)
    former = read_json(listing, dict).items() if listing.exists() else ()
    entries = {name: entry for name, entry in former if entry.get("source") != archive.name}
    checksum = hashlib.sha1(archive.read_bytes()).hexdigest()  # the zoo's choice
    entries[f"{archive.stem}_v{version}"] = {"checksum": checksum, "source": archive.name}
    write_json(listing, dict(sorted(entries.items())), indent=4)


def bundle_versions(folder: PathLike) -> dict[str, dict[str, str | list[str]]]:
    """Versions in the ``model_info.json`` of a folder, here or of the Model Zoo, without network.

    They are given as by ``monai.bundle.get_bundle_versions``, ``latest_version`` and ``all_versions`` of each bundle,
    but compared as numbers.
    """
    versions: dict[str, list[str]] = {}
    for entry in read_json(Path(folder) / LISTING, dict):
        name, _, version = entry.rpartition("_v")
        versions.setdefault(name, []).append(version)
    for found in versions.values():
        found.sort(key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
    return {name: {"latest_version": found[-1], "all_versions": found} for name, found in versions.items()}


def push_bundle(
    folder: PathLike, repo: str, dry_run: bool = False, private: bool = True, **arguments: Any
) -> dict[str, int]:
    """Check a folder that :func:`build_bundle` made, and push it to Hugging Face, by MONAI's ``push_to_hf_hub``.

    MONAI adds a ``README.md`` (the bundle's own below Hugging Face's head) and tags the upload with the version. Gives
    the files that go (or would), and their sizes in bytes.

    Args:
        folder: the bundle's folder.
        repo: ``"user/name"`` or ``"organization/name"``; it is made if it is not there.
        dry_run: only tell what would go; nothing is written or sent, and no token is needed.
        private: whether a new repository is private.
        arguments: further arguments of MONAI's function, as ``token``, ``commit_message`` or ``revision``.
    """
    folder = Path(os.path.abspath(folder))
    if unknown := sorted(arguments.keys() - FURTHER):  # perhaps a misspelt `dry_run`
        known = ", ".join(sorted({"dry_run", "private", *FURTHER}))
        raise ValueError(f"`{unknown[0]}`: a push has no such argument, only {known}; nothing was sent.")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ValueError(f"`repo` must be 'owner/name', but got {repo!r}.")
    check_large_files(folder)
    version = read_json(folder / "configs" / "metadata.json", dict)["version"]
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    verb, kind = "Would push" if dry_run else "Pushing", "private" if private else "public"
    print(f"{verb} version {version} to {repo} ({kind}):")
    for name, size in sorted(files.items()):
        print(f"{size:12,d}  {name}")
    print(f"{sum(files.values()):12,d}  bytes in {len(files)} files, and README.md made of docs/README.md")
    if not dry_run:
        if not has_hub:
            raise RuntimeError("Pushing needs the package huggingface_hub: install it with pip.")
        push_to_hf_hub(
            repo=repo, name=folder.name, bundle_dir=str(folder.parent), private=private, version=version, **arguments
        )
    return files
