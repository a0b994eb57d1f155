# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from monai.bundle import push_to_hf_hub
from monai.utils import optional_import

from endofm_monai.apps.sharing.listing import check_large_files

__all__ = ["push_bundle"]

_, has_hub = optional_import("huggingface_hub")


def push_bundle(
    folder: str | os.PathLike, repo: str, dry_run: bool = False, private: bool = True, **arguments: Any
) -> dict[str, int]:
    """Push a folder that :func:`build_bundle` made to a repository on Hugging Face, by MONAI's ``push_to_hf_hub``.

    MONAI adds a ``README.md`` (the bundle's own below Hugging Face's head) and tags the upload with the version. The
    hashes of the weights are checked before.

    Args:
        folder: the bundle's folder.
        repo: ``"user/name"`` or ``"organization/name"``; it is made if it is not there.
        dry_run: only tell what would go; nothing is written or sent, and no token is needed.
        private: whether a new repository is private.
        arguments: further arguments of MONAI's function, e.g. ``token`` or ``tag_as_latest_version``.

    Returns:
        the files that go (or would), and their sizes in bytes.

    Raises:
        FileNotFoundError: when ``folder`` is none that ``build_bundle`` made.
        ValueError: when ``repo`` has no owner, or weights are not those of ``large_files.yml``.
        RuntimeError: when ``huggingface_hub`` is not installed.
    """
    folder = Path(folder).resolve()
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ValueError(f"`repo` must be 'owner/name', but got {repo!r}.")
    check_large_files(folder)
    version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    print(
        f"{'Would push' if dry_run else 'Pushing'} version {version} to {repo} ({'private' if private else 'public'}):"
    )
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
