# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import fire

from endofm_monai.preparation.manifest import build_manifest, draw_stats, verify_manifest
from endofm_monai.preparation.parallel import run_parallel
from endofm_monai.preparation.record import prepare_video, read_record, relative, remove_leftovers, write_json
from endofm_monai.preparation.sources import PreparationSettings, SourceDataset, SourceVideo

__all__ = ["prepare_dataset", "run_from_command_line"]

SECTIONS = ("training", "validation", "test")


def prepare_dataset(
    dataset: SourceDataset,
    videos: Sequence[SourceVideo],
    source: str | Path,
    output: str | Path,
    *,
    datalists: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    problems: Sequence[str] = (),
    private: bool = False,
    verify: bool = False,
    strict: bool = False,
    workers: int = -1,
    backend: str = "loky",
    scheduler: str | None = None,
    stats: bool = True,
    **settings: Any,
) -> str:
    """Make clips, a datalist and a manifest of a dataset.

    Finished videos are kept when a run is started again. A video that cannot be used is listed in the manifest and
    left out.

    Args:
        dataset: what is known about the dataset.
        videos: its videos.
        source: folder with the files as their owners distribute them; it is only read.
        output: folder to write to.
        datalists: further datalists: for each file name, for each of its sections, names of videos.
        problems: what is wrong with the sources as far as their layout tells, for the manifest.
        private: name no source file in what is written, as names can tell who the patient is.
        verify: only check an earlier output against its manifest.
        strict: end with an error when a video had to be left out.
        workers: number of processes on this machine; -1 for one a processor core.
        backend: where to work: see :func:`endofm_monai.preparation.run_parallel`.
        scheduler: address of a cluster.
        stats: draw pictures of the set.
        settings: how to make clips, see :class:`endofm_monai.preparation.PreparationSettings`; those of the
            dataset by default.

    Returns:
        the path of the datalist.

    Raises:
        OSError: when the output cannot be written.
        ValueError: when an option is unknown or out of its range, two videos have the same name, the folder holds data
            prepared with other settings, no video could be used, or the output differs from its manifest.
    """
    source, output = Path(source), Path(output)
    datalist = output / "datalist.json"
    if verify:
        verify_manifest(output)
        return str(datalist)

    if unknown := settings.keys() - {field.name for field in fields(PreparationSettings)}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such option")
    if output.resolve() == source.resolve():
        raise ValueError(f"output: needs another folder than the source {source}")
    chosen = PreparationSettings(**{"mode": dataset.mode, "clip_seconds": dataset.clip_seconds, **settings})
    named: dict[str, SourceVideo] = {}
    for video in videos:
        if named.setdefault(video.name, video) is not video:
            raise ValueError(f"{video.files[0]}: has the same name as {named[video.name].files[0]}: {video.name}")
    _claim(output / "settings.json", {"dataset": dataset.name, "source": relative(source, output), **asdict(chosen)})
    remove_leftovers(output)

    records = {video.name: read_record(video, output) for video in videos}
    missing = [video for video in videos if records[video.name] is None]
    is_new = not (output / "stats.png").exists()
    for name, record in run_parallel(
        _prepare_named,
        [(video, source, output, chosen, private) for video in missing],
        workers,
        backend,
        scheduler,
        dataset.name,
        len(videos) - len(missing),
    ):
        records[name] = record
        is_new |= "video" in record

    entries = [record["video"] for record in records.values() if record and "video" in record]
    failed = {name: record["problem"] for name, record in records.items() if record and "problem" in record}
    if not entries:
        raise ValueError(f"{source}: no video could be used: {next(iter(failed.values()), 'there is none')}")
    modes = {entry["mode"] for entry in entries}
    data = source if modes == {"index"} else output
    if len(modes) > 1:  # some clips stay in the source, others are in the output: paths begin where both lie
        data = Path(os.path.commonpath([source.resolve(), output.resolve()]))
        for entry in entries:
            _rebase(entry, source if entry["mode"] == "index" else output, data)
    about = {
        "name": dataset.name,
        "licence": dataset.licence,
        "labels": {str(index): label for index, label in dataset.labels.items()},
    }
    lists = {"datalist.json": _by_section(entries), **_named_lists(datalists or {}, entries)}
    for file, sections in lists.items():
        write_json(output / file, {**about, **sections})
    manifest = build_manifest(dataset, entries, relative(data, output), relative(source, output), chosen)
    notes = [note for video in videos for note in video.notes]
    found = [*failed.values(), *problems, *notes, *_duplicates(entries)]
    manifest["problems"] = [f"{name}: could not be used" for name in failed] if private else found
    write_json(output / "manifest.json", manifest)
    if stats and is_new:
        draw_stats(output, dataset, entries, data)
    _report(manifest, found, data, datalist)
    if strict and found:
        raise ValueError(f"{output}: {len(found)} problems, see above")
    return str(datalist)


def _prepare_named(video: SourceVideo, *arguments: Any) -> tuple[str, dict[str, Any]]:
    return video.name, prepare_video(video, *arguments)


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Note the settings in the folder, so that clips made with other settings are never mixed in."""
    settings = json.loads(json.dumps(settings))
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    if found != settings:
        different = [key for key in settings if found.get(key) != settings[key]]
        was, now = ({key: each.get(key) for key in different} for each in (found, settings))
        raise ValueError(f"{path.parent}: was prepared with {was}, not {now}; choose another output or remove it")
    write_json(path, settings)


def _rebase(entry: dict[str, Any], folder: Path, data: Path) -> None:
    """Make the paths of a video's clips, which are relative to ``folder``, relative to ``data``."""
    for clip in entry["clips"]:
        for key in clip["item"].keys() & {"image", "mask"}:
            value = clip["item"][key]
            paths = [relative(folder / path, data) for path in ([value] if isinstance(value, str) else value)]
            clip["item"][key] = paths[0] if isinstance(value, str) else paths


def _by_section(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    lists = {
        section: [clip["item"] for entry in entries if entry["section"] == section for clip in entry["clips"]]
        for section in SECTIONS
    }
    return {section: items for section, items in lists.items() if items}


def _named_lists(
    datalists: Mapping[str, Mapping[str, Any]], entries: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Make the further datalists; what is no list of names, as a note, is kept as it is."""
    clips = {entry["name"]: [clip["item"] for clip in entry["clips"]] for entry in entries}
    return {
        file: {
            key: names if isinstance(names, str) else [item for name in names for item in clips.get(name, [])]
            for key, names in sections.items()
        }
        for file, sections in datalists.items()
    }


def _duplicates(entries: list[dict[str, Any]]) -> list[str]:
    """Tell which videos have the same content, byte for byte."""
    first: dict[str, dict[str, Any]] = {}
    pairs = [(first.setdefault(entry["sha256"], entry), entry) for entry in entries]
    return [
        f"{other['name']} ({other['section']}): is the same, byte for byte, as {entry['name']} ({entry['section']})"
        for entry, other in pairs
        if entry is not other
    ]


def _report(manifest: dict[str, Any], problems: list[str], data: Path, datalist: Path) -> None:
    """Say what there is now, and how it compares with what is published."""
    for problem in problems:
        print(f"problem: {problem}")
    counts = ", ".join(
        f"{what} {count}" + (f" (published: {manifest['published'][what]})" if what in manifest["published"] else "")
        for what, count in manifest["totals"].items()
        if isinstance(count, int)
    )
    counts += "".join(f", {mode} {count}" for mode, count in manifest["totals"]["modes"].items())
    print(f"{manifest['name']}: {counts}; use it with --dataset_dir {data} --datalist {datalist}")


def run_from_command_line(function: Callable[..., Any]) -> None:
    """Make a function the command of a script.

    What is wrong with files or arguments ends it with one line instead of a traceback.

    Args:
        function: the function, whose arguments become the command's.
    """
    try:
        fire.Fire(function)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
