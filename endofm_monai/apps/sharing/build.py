# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import endofm_monai
from endofm_monai.apps.sharing.export import EXPORTED_NAMES, export_network, load_network
from endofm_monai.apps.sharing.listing import add_to_listing, write_large_files
from endofm_monai.apps.sharing.model_card import fill_model_card
from endofm_monai.apps.sharing.zoo_tests import write_zoo_tests

__all__ = ["build_bundle"]

WEIGHT_FORMATS = ("pt", "safetensors")
NOT_SHARED = shutil.ignore_patterns("__pycache__", "*.pyc", "eval", "models", "logs", "bin", "model", ".*")


def build_bundle(
    bundle: str | os.PathLike,
    weights: str | os.PathLike,
    output: str | os.PathLike,
    formats: Sequence[str] = WEIGHT_FORMATS,
    weights_url: str | None = None,
    trained_on: str | None = None,
    results: str | os.PathLike | None = None,
    data_license: str | os.PathLike | None = None,
    **overrides: Any,
) -> Path:
    """Make of a bundle and trained weights what one shares: a folder and a zip that run on their own.

    Beside what the bundle's folder holds, there are the weights in ``models``, this package (so that nothing of the
    project needs to be installed), ``large_files.yml`` with the SHA-256 of the weights, and a model card with results.
    The zip has the same bytes for the same content. Beside it are ``model_info.json``, which lists the bundles of
    ``output`` (see :func:`bundle_versions`), and in ``ci/unit_tests`` the tests that the Model Zoo asks for.

    Args:
        bundle: the bundle's folder.
        weights: a file that fits its network, of any layout that :func:`endofm_monai.weights.load_published` reads.
        output: the folder to make ``<name>/`` and ``<name>.zip`` in; former ones are replaced when all is done.
        formats: which files ``models`` holds: ``"pt"`` (what MONAI's ``load`` and exports ask for), ``"safetensors"``,
            and those of :func:`export_network`. Without ``"pt"`` the configurations load the safetensors file.
        weights_url: address of the folder that the weight files will be downloaded from, for ``large_files.yml``.
        trained_on: the training data, for the model card.
        results: the report of ``evaluate.json`` for these weights, for the model card.
        data_license: the terms of the training data, in the place of the bundle's ``docs/data_license.txt``.
        overrides: values for keys of ``inference.json`` that the weights need, for example ``preset="small"``; they are
            written into the shared configuration.

    Returns:
        the zip.

    Raises:
        ValueError: when ``formats`` has an unknown one, or none of the weights.
        FileNotFoundError: when ``bundle`` has no ``configs/inference.json``.
        KeyError: when an override is no key of it.
        WeightsError: when the weights do not fit the bundle's network.

    Example::

        build_bundle("bundle/endofm_pretraining", "models/model.pt", "shared", preset="small")
    """
    bundle, output = Path(bundle).resolve(), Path(output)
    formats = [formats] if isinstance(formats, str) else list(formats)
    known = (*WEIGHT_FORMATS, *EXPORTED_NAMES)
    if not set(formats) <= set(known) or not set(formats) & set(WEIGHT_FORMATS):
        raise ValueError(f"`formats` must be of {', '.join(known)}, with pt or safetensors among them, got {formats}.")
    state = {
        name: value.contiguous() for name, value in load_network(bundle, weights, **overrides).state_dict().items()
    }
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as temporary:
        folder = Path(temporary) / bundle.name
        shutil.copytree(bundle, folder, ignore=NOT_SHARED)
        shutil.copytree(Path(endofm_monai.__file__).parent, folder / endofm_monai.__name__, ignore=NOT_SHARED)
        _override(folder / "configs", overrides, WEIGHT_FORMATS["pt" not in formats])
        (folder / "models").mkdir()
        if "pt" in formats:
            torch.save(state, folder / "models" / "model.pt")
        if "safetensors" in formats:
            save_file(state, folder / "models" / "model.safetensors", metadata={"format": "pt"})
        for name in set(formats) & set(EXPORTED_NAMES):
            export_network(folder, weights, name, **overrides)
        if data_license is not None:
            shutil.copy(data_license, folder / "docs" / "data_license.txt")
        fill_model_card(folder, trained_on, results)
        write_large_files(folder, weights_url)
        archive = _zip(folder)
        for made in (folder, archive):
            place = output / made.name
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(made, place)
    metadata = json.loads((output / bundle.name / "configs" / "metadata.json").read_text(encoding="utf-8"))
    add_to_listing(output / archive.name, metadata["version"])
    write_zoo_tests(bundle.name, output / "ci" / "unit_tests")
    return output / archive.name


def _override(configs: Path, overrides: dict[str, Any], weights_format: str) -> None:
    """Make the values the defaults of all configurations with these keys, and name the weights' file.

    A key at the top must be there; one below it, such as ``network_def::img_size``, may be new.
    """
    for path in configs.glob("*.json"):
        if path.name != "metadata.json":
            content = json.loads(path.read_text(encoding="utf-8"))
            for key, value in overrides.items():
                *parents, last = key.split("::")
                section = content
                for parent in parents:
                    section = section.get(parent, {})
                if isinstance(section, dict) and (last in section or (parents and section)):
                    section[last] = value
            if isinstance(content.get("weights"), str):
                content["weights"] = f"$@bundle_root + '/models/model.{weights_format}'"
            path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


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
