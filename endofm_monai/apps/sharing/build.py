# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out

import endofm_monai
from endofm_monai.apps.sharing.export import EXPORTED_NAMES, clip_shape, export_network, load_network, overlays
from endofm_monai.apps.sharing.publish import add_to_listing, write_large_files
from endofm_monai.apps.sharing.zoo_tests import write_zoo_tests
from endofm_monai.inferers.bundle import released_settings
from endofm_monai.utils import PathLike, as_class_names, read_json, sha256, write_json
from endofm_monai.weights import save_weights

WEIGHT_FORMATS = ("pt", "safetensors")
NOT_SHARED = shutil.ignore_patterns(
    "__pycache__", "*.pyc", "eval", "models", "logs", "bin", "model", "released.json", ".*"
)


def build_bundle(
    bundle: PathLike,
    weights: PathLike,
    output: PathLike,
    formats: Sequence[str] = WEIGHT_FORMATS,
    weights_url: str | None = None,
    trained_on: str | None = None,
    results: PathLike | None = None,
    data_license: PathLike | None = None,
    **overrides: Any,
) -> Path:
    """Make of a bundle and trained weights what one shares: a folder and a zip that run on their own.

    The folder also holds the weights, this package, overlays for exported networks, and ``large_files.yml`` with the
    SHA-256 of the weights. Its metadata say what this network takes and gives, which is checked as the Model
    Zoo does. The zip has the same bytes for the same content. Beside it are ``model_info.json``, the list
    of the bundles in ``output``, and in ``ci/unit_tests`` the tests of the Model Zoo. Gives the path of the zip.

    Args:
        bundle: the bundle's folder.
        weights: a file that fits its network, see docs/weights.md.
        output: the folder to make ``<name>/`` and ``<name>.zip`` in; former ones are replaced when all is done.
        formats: which files ``models`` holds: ``"pt"`` (what MONAI's ``load`` and exports ask for), ``"safetensors"``,
            and of exported networks ``"ts"``, ``"onnx"`` and ``"trt"``. Without ``"pt"`` the configurations load the
            safetensors file.
        weights_url: address of the folder that the weight files will be downloaded from, for ``large_files.yml``.
        trained_on: the training data and where they come from, for the model card.
        results: the JSON report of ``evaluate.json`` for these weights, for the model card.
        data_license: the terms of the training data, in the place of the bundle's ``docs/data_license.txt``.
        overrides: values for keys of ``inference.json`` that the weights need, for example ``preset="small"``; they are
            written into the shared configuration, save ``backbone_weights``, since the shared files are complete.
    """
    bundle, output = Path(os.path.abspath(bundle)), Path(output)
    formats = [formats] if isinstance(formats, str) else list(formats)
    known = (*WEIGHT_FORMATS, *EXPORTED_NAMES)
    if not set(formats) <= set(known) or not set(formats) & set(WEIGHT_FORMATS):
        raise ValueError(f"`formats` must be of {', '.join(known)}, with pt or safetensors among them, got {formats}.")
    if bundle.resolve().is_relative_to(old := (output / bundle.name).resolve()):
        raise ValueError(f"{output}: {old}, which would be replaced, is or holds the bundle; choose another `output`.")
    for file in (results, data_license):
        if file is not None:
            Path(file).open("rb").close()  # it may be missing, and exports take minutes
    overrides = {**released_settings(bundle, Path(weights)), **overrides}
    state = load_network(bundle, weights, **overrides)[0].state_dict()
    overrides.pop("backbone_weights", None)  # the files hold the whole network
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as temporary:
        folder = Path(temporary) / bundle.name
        _copy(bundle, folder)
        _copy(Path(endofm_monai.__file__).parent, folder / endofm_monai.__name__)
        _override(folder / "configs", overrides, "pt" if "pt" in formats else "safetensors")
        write_data_format(folder)
        (folder / "models").mkdir()
        for name, save in (("pt", torch.save), ("safetensors", save_weights)):
            if name in formats:
                save(state, folder / "models" / f"model.{name}")
        saved = next(folder.glob("models/model.*"))
        for name in set(formats) & set(EXPORTED_NAMES):
            export_network(folder, saved, name, **overrides)
        if data_license is not None:
            shutil.copy(data_license, folder / "docs" / "data_license.txt")
        fill_model_card(folder, trained_on, results)
        write_large_files(folder, weights_url)
        verify(folder)
        archive = _zip(folder)
        for made in (folder, archive):
            place = output / made.name
            if place.is_dir():
                shutil.rmtree(place)
            os.replace(made, place)
    version = read_json(output / bundle.name / "configs" / "metadata.json", dict)["version"]
    add_to_listing(output / archive.name, version)
    write_zoo_tests(bundle.name, output / "ci" / "unit_tests")
    return output / archive.name


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=NOT_SHARED)
    for path in (target, *target.rglob("*")):  # the source may be read-only
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def write_data_format(folder: Path) -> None:
    """Say in a bundle's metadata what its network takes and gives, as ``inference.json`` makes it."""
    inference = read_json(folder / "configs" / "inference.json", dict)
    network, shape = ConfigParser(dict(inference)).get_parsed_content("network_def").eval(), clip_shape(inference)
    with torch.no_grad():
        _, channels, *places = network(torch.zeros(1, 3, *shape)).shape
    metadata = read_json(folder / "configs" / "metadata.json", dict)
    data_format = metadata["network_data_format"]
    image, pred = data_format["inputs"]["image"], data_format["outputs"]["pred"]
    names = list(pred["channel_def"].values())
    if "class_names" in inference:
        names = [*(name for name in names[:1] if name == "background"), *as_class_names(inference["class_names"])]
    elif names:
        names = [*names, *(f"class {index}" for index in range(len(names), channels))][:channels]
    image["spatial_shape"] = shape
    channel_def = {str(index): name for index, name in enumerate(names)}
    pred |= {"num_channels": channels, "spatial_shape": places, "channel_def": channel_def}
    write_json(folder / "configs" / "metadata.json", metadata, indent=4)


def verify(folder: Path) -> None:
    """Check a bundle as the Model Zoo does: the metadata by their schema, and the network by the metadata."""
    metadata, inference = (str(folder / "configs" / f"{name}.json") for name in ("metadata", "inference"))
    verify_metadata(meta_file=metadata, filepath=Path(__file__).with_name("metadata_schema.json"))
    verify_net_in_out(net_id="network_def", meta_file=metadata, config_file=inference, device="cpu")


def fill_model_card(folder: PathLike, trained_on: str | None = None, results: PathLike | None = None) -> Path:
    """Say in a bundle's ``docs/model_card.md`` what its weights are, what they were trained on, and what they reach.

    The sections "Weights" and "Results" are written anew; all else stays. For arguments see :func:`build_bundle`.
    """
    folder = Path(folder)
    card = folder / "docs" / "model_card.md"
    lines = [f"Version {read_json(folder / 'configs' / 'metadata.json', dict)['version']} of the bundle.", ""]
    lines += [f"Trained on: {(trained_on or 'not stated by those who share these weights').removesuffix('.')}.", ""]
    lines += ["| file | bytes | SHA-256 |", "| --- | --- | --- |"]
    files = sorted((folder / "models").iterdir())
    lines += [f"| `models/{path.name}` | {path.stat().st_size} | `{sha256([path])}` |" for path in files]
    text = card.read_text(encoding="utf-8")
    for title, content in (("Weights", "\n".join(lines)), ("Results", _results(results))):
        before, heading, after = text.partition(f"## {title}\n")
        if not heading:
            raise ValueError(f"{card}: has no section '## {title}'.")
        _, next_heading, rest = after.partition("\n## ")
        text = f"{before}{heading}\n{content}\n{next_heading}{rest}"
    card.write_text(text, encoding="utf-8")
    return card


def _results(report: PathLike | None) -> str:
    if report is None:
        return "These weights came without results: nothing is known of how well they do."
    content = read_json(Path(report), dict)
    rows = list(_rows(content, ""))
    if not rows:
        raise ValueError(f"{report}: has no score; expected the JSON report of the bundle's evaluate.json.")
    table = [f"Protocol: {content['protocol']}.", ""] if content.get("protocol") else []
    table += ["| score | value | 95 % interval |", "| --- | --- | --- |"]
    for name, value, interval in rows:
        shown = f"{value:.3f}" if isinstance(value, float) else value
        ends = "" if interval is None or None in interval else "{:.3f} to {:.3f}".format(*interval)
        table.append(f"| {name} | {shown} | {ends} |")
    return "\n".join(table)


def _rows(report: dict[str, Any], prefix: str) -> Iterator[tuple[str, float, list[float] | None]]:
    """Path of keys, value and interval of the scores in a report of any of the bundles."""
    intervals = report.get("intervals", {})
    for key, value in report.items():
        if key == "intervals" or isinstance(value, bool):
            continue
        if isinstance(value, dict) and isinstance(value.get("value"), (int, float)):
            yield f"{prefix}{key}", value["value"], value.get("interval")
        elif key == "scores" and intervals:
            yield from ((f"{prefix}{name}", v, intervals.get(name)) for name, v in value.items() if v is not None)
        elif isinstance(value, dict):
            yield from _rows(value, f"{prefix}{key} / ")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{key}", value, None


def _override(configs: Path, overrides: dict[str, Any], weights_format: str) -> None:
    """Make the values the defaults of all configurations with these keys, name the weights' file, add the overlays.

    A key at the top must be there; one below it, such as ``network_def::img_size``, may be new. What the published code
    did stays as it is.
    """
    for path in sorted({*configs.glob("*.json")} - {configs / "metadata.json", *configs.glob("reference*.json")}):
        content = read_json(path, dict)
        for key, value in overrides.items():
            place, _, name = key.rpartition("::")
            section = ConfigParser(content).get(place)
            if isinstance(section, dict) and (name in section or (place and section)):
                section[name] = value
        if isinstance(content.get("weights"), str):
            content["weights"] = f"$@bundle_root + '/models/model.{weights_format}'"
        write_json(path, content, indent=4)
    for name, content in overlays(read_json(configs / "inference.json", dict)).items():
        write_json(configs / f"{name}.json", content, indent=4)


def _zip(folder: Path) -> Path:
    archive = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), (1980, 1, 1, 0, 0, 0))
            is_weights = path.parent.name == "models"  # which deflate to nothing less
            entry.compress_type = zipfile.ZIP_STORED if is_weights else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, file.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
    return archive
