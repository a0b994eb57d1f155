# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from safetensors.torch import save_file

import endofm_monai
from endofm_monai.utils import sha256
from endofm_monai.weights import load_published

__all__ = ["build_bundle"]

LARGE_FILE_BYTES = 25_000_000  # of a file that the Model Zoo keeps outside of its repository
NOT_SHARED = shutil.ignore_patterns("__pycache__", "*.pyc", "eval", "models", ".*")


def build_bundle(
    bundle: str | os.PathLike,
    weights: str | os.PathLike,
    output: str | os.PathLike,
    weights_url: str | None = None,
    **overrides: Any,
) -> Path:
    """Make of a bundle and trained weights what one shares: a folder and a zip that run on their own.

    Beside what the bundle's folder holds, there are the weights as ``models/model.pt`` and
    ``models/model.safetensors``, this package (so that nothing of the project needs to be installed), and
    ``large_files.yml`` with the SHA-256 of the weight files, where they are large. The zip has the same bytes for the
    same content.

    Args:
        bundle: the bundle's folder.
        weights: a file that fits its network, of any layout that :func:`endofm_monai.weights.load_published` reads.
        output: the folder to make ``<name>/`` and ``<name>.zip`` in; former ones are replaced when all is done.
        weights_url: address of the folder that the weight files will be downloaded from, for ``large_files.yml``.
        overrides: values for keys of ``inference.json`` that the weights need, for example ``preset="small"``; they are
            written into the shared configuration.

    Returns:
        the zip.

    Raises:
        FileNotFoundError: when ``bundle`` has no ``configs/inference.json``.
        KeyError: when an override is no key of it.
        WeightsError: when the weights do not fit the bundle's network.

    Example::

        build_bundle("bundle/endofm_pretraining", "models/model.pt", "shared", preset="small")
    """
    bundle, output = Path(bundle).resolve(), Path(output)
    config = bundle / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{config}: is missing; `bundle` must be the folder of a bundle.")
    network = _network(config, overrides)
    load_published(network, weights)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as temporary:
        folder = Path(temporary) / bundle.name
        shutil.copytree(bundle, folder, ignore=NOT_SHARED)
        shutil.copytree(Path(endofm_monai.__file__).parent, folder / endofm_monai.__name__, ignore=NOT_SHARED)
        _override(folder / "configs", overrides)
        (folder / "models").mkdir()
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        torch.save(state, folder / "models" / "model.pt")
        save_file(state, folder / "models" / "model.safetensors", metadata={"format": "pt"})
        _write_large_files(folder, weights_url)
        archive = _zip(folder)
        for made in (folder, archive):
            place = output / made.name
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(made, place)
    return output / archive.name


def _network(config: Path, overrides: dict[str, Any]) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(config))
    if strange := [key for key in overrides if key not in parser.get()]:
        raise KeyError(f"{config}: has no key {', '.join(strange)}.")
    parser.update(overrides)
    return parser.get_parsed_content("network_def")


def _override(configs: Path, overrides: dict[str, Any]) -> None:
    """Make the values the defaults of all configurations that have the keys at their top."""
    for path in configs.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        changed = {key: value for key, value in overrides.items() if key in content}
        if changed and path.name != "metadata.json":
            path.write_text(json.dumps({**content, **changed}, indent=4) + "\n", encoding="utf-8")


def _write_large_files(folder: Path, weights_url: str | None) -> None:
    files = [path for path in sorted((folder / "models").iterdir()) if path.stat().st_size > LARGE_FILE_BYTES]
    entries = []
    for path in files:
        entry = {"path": path.relative_to(folder).as_posix(), "hash_val": sha256([path]), "hash_type": "sha256"}
        entries.append({**entry, "url": f"{weights_url.rstrip('/')}/{path.name}"} if weights_url else entry)
    if entries:
        content = json.dumps({"large_files": entries}, indent=4)  # JSON is YAML
        (folder / "large_files.yml").write_text(f"{content}\n", encoding="utf-8")


def _zip(folder: Path) -> Path:
    archive = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), (1980, 1, 1, 0, 0, 0))
                is_weights = path.parent.name == "models"  # which deflate to nothing less
                entry.compress_type = zipfile.ZIP_STORED if is_weights else zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                with path.open("rb") as source, file.open(entry, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target)
    return archive
