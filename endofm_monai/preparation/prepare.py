# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from endofm_monai.preparation.index import move_paths, prepare_video, read_record, relative, write_lists
from endofm_monai.preparation.sources import SECTIONS, PreparationSettings, SourceDataset, SourceVideo
from endofm_monai.preparation.verify import build_manifest, draw_stats, verify_manifest
from endofm_monai.utils import read_json, remove_leftovers

Result = TypeVar("Result")


def prepare_dataset(
    dataset: SourceDataset,
    videos: Sequence[SourceVideo],
    source: str | Path,
    output: str | Path,
    *,
    datalists: Mapping[str, Mapping[str, Any]] | None = None,
    problems: Sequence[str] = (),
    private: bool = False,
    verify: bool = False,
    strict: bool = False,
    stats: bool = True,
    **options: Any,
) -> str:
    """Make clips, a datalist and a manifest of a dataset, and give the path of the datalist.

    Finished videos are kept when a run is started again. A video that cannot be used is left out, as the manifest says.

    Args:
        dataset: what is known about it.
        videos: its videos.
        source: folder with the files as their owners distribute them; it is only read.
        output: folder to write to.
        datalists: further datalists: for each file name notes, and for each of its sections the names of videos.
        problems: what is wrong with the sources as far as their layout tells, for the manifest.
        private: name no source file in what is written, as names can tell who the patient is.
        verify: only check an earlier output against its manifest.
        strict: end with an error when a video had to be left out.
        stats: draw pictures of the set.
        options: those of :class:`PreparationSettings`, and workers, backend and scheduler of :func:`run_parallel`.
    """
    source, output = Path(source), Path(output)
    datalist = output / "datalist.json"
    if verify:
        verify_manifest(output)
        return str(datalist)

    parallel = {key: options.pop(key) for key in ("workers", "backend", "scheduler") if key in options}
    if unknown := options.keys() - {field.name for field in fields(PreparationSettings)}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such option")
    if output.resolve() == source.resolve():
        raise ValueError(f"output: needs another folder than the source {source}")
    chosen = PreparationSettings(**{"mode": dataset.mode, "clip_seconds": dataset.clip_seconds, **options})
    _refuse_same_names(videos)
    settings = {"dataset": dataset.name, "source": relative(source, output), **asdict(chosen)}
    claim_settings(output / "settings.json", settings)
    remove_leftovers(output, "**/")

    done = {video.name: record for video in videos if (record := read_record(video, output)) is not None}
    missing = [(video, source, output, chosen, private) for video in videos if video.name not in done]
    is_new = not (output / "stats.png").exists()
    for record in run_parallel(prepare_video, missing, dataset.name, len(done), **parallel):
        done[record["name"]] = record
        is_new |= "video" in record

    records = [done[video.name] for video in videos]
    _refuse_same_files(records, output)
    entries = [record["video"] for record in records if "video" in record]
    failed = {record["name"]: record["problem"] for record in records if "problem" in record}
    if not entries:
        reason = next(iter([*failed.values(), *problems]), "there is none")
        raise ValueError(f"{source}: no video could be used: {reason}")
    data = _common_folder(entries, source, output)
    sections = {name: [each["name"] for each in entries if each["section"] == name] for name in SECTIONS}
    for file, lists in {"datalist.json": sections, **(datalists or {})}.items():
        _write_datalist(output / file, dataset, entries, lists)
    at, origin = (relative(folder.resolve(), output.resolve()) for folder in (data, source))  # where links lead to
    manifest = build_manifest(dataset, entries, at, origin, chosen)
    found = [*failed.values(), *problems, *(note for video in videos for note in video.notes), *_duplicates(entries)]
    manifest["problems"] = [f"{name}: could not be used" for name in failed] if private else found
    write_lists(output / "manifest.json", manifest)
    if stats and is_new:
        draw_stats(output, dataset, entries, data)

    for problem in found:
        print(f"problem: {problem}")
    print(f"{_counts(dataset, manifest['totals'])}; use it with --dataset_dir {data} --datalist {datalist}")
    if strict and found:
        raise ValueError(f"{output}: {len(found)} problems, see above")
    return str(datalist)


def _refuse_same_names(videos: Sequence[SourceVideo]) -> None:
    named: dict[str, SourceVideo] = {}
    for video in videos:
        if named.setdefault(video.name, video) is not video:
            raise ValueError(f"{video.files[0]}: has the same name as {named[video.name].files[0]}: {video.name}")


def _refuse_same_files(records: Sequence[dict[str, Any]], output: Path) -> None:
    """Refuse that two videos have a clip in the same file, as x_00001 and a long x, which is cut into x_00001, ..."""
    owners: dict[str, str] = {}
    for name, file in ((record["name"], file) for record in records for file in record.get("written", ())):
        if (other := owners.setdefault(file, name)) != name:
            problem = f"is a clip of {other} and one of {name}, which replaced each other"
            raise ValueError(f"{output / file}: {problem}; rename a source, and prepare into another folder")


def claim_settings(path: Path, settings: dict[str, Any]) -> None:
    """Note the settings in an output folder, so that what was made with other ones is never mixed in."""
    settings = json.loads(json.dumps(settings))
    found = read_json(path, dict) if path.exists() else settings
    if found != settings:
        different = [key for key in {**found, **settings} if found.get(key) != settings.get(key)]
        was, now = ({key: each.get(key) for key in different} for each in (found, settings))
        raise ValueError(f"{path.parent}: was made with {was}, not {now}; choose another output or remove it")
    write_lists(path, settings)


def _write_datalist(
    path: Path, dataset: SourceDataset, entries: list[dict[str, Any]], lists: Mapping[str, Any]
) -> None:
    """Write notes, as they are, and sections, whose videos' names become clips; a section without any is left out."""
    clips = {entry["name"]: [clip["item"] for clip in entry["clips"]] for entry in entries}
    labels = {str(index): label for index, label in dataset.labels.items()}
    content: dict[str, Any] = {"name": dataset.name, "licence": dataset.licence, "labels": labels}
    for key, value in lists.items():
        listed = value if isinstance(value, str) else [item for name in value for item in clips.get(name, [])]
        if listed:
            content[key] = listed
    write_lists(path, content)


def _counts(dataset: SourceDataset, totals: dict[str, Any]) -> str:
    """Say how much there is, and how much there should be as published."""
    known = {what: f" (published: {count})" for what, count in dataset.published.items()}
    counts = [f"{what} {totals[what]}{known.get(what, '')}" for what in ("videos", "clips", "frames")]
    return f"{dataset.name}: {', '.join(counts + [f'{mode} {count}' for mode, count in totals['modes'].items()])}"


def _common_folder(entries: list[dict[str, Any]], source: Path, output: Path) -> Path:
    """Give the folder that all clips' paths are relative to; where some clips stay in the source, that of both."""
    modes = {entry["mode"] for entry in entries}
    if len(modes) == 1:
        return source if modes == {"index"} else output
    data = Path(os.path.commonpath([source.resolve(), output.resolve()]))
    for entry in entries:
        for item in (clip["item"] for clip in entry["clips"]):
            for key in item.keys() & {"image", "mask"}:
                item[key] = move_paths(item[key], source if entry["mode"] == "index" else output, data)
    return data


def _duplicates(entries: list[dict[str, Any]]) -> list[str]:
    first: dict[str, str] = {}
    named = [(f"{entry['name']} ({entry['section']})", entry["sha256"]) for entry in entries]
    pairs = [(name, first.setdefault(digest, name)) for name, digest in named]
    return [f"{name}: is the same, byte for byte, as {other}" for name, other in pairs if name != other]


def run_parallel(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    description: str = "",
    finished: int = 0,
    workers: int = -1,
    backend: str = "loky",
    scheduler: str | None = None,
) -> Iterator[Result]:
    """Call a function with many arguments, in processes on this machine or in a cluster; results come as they are made.

    Args:
        function: the function, which processes can import.
        arguments: the arguments of each call.
        description: stands before the progress bar.
        finished: number of calls that an earlier run has done, for the progress bar.
        workers: number of processes on this machine; -1 for one a processor core. A cluster decides itself.
        backend: joblib's: ``"loky"`` for processes on this machine, ``"dask"`` or ``"ray"`` for a cluster, whose
            package has to be installed and whose machines need the same paths and this package.
        scheduler: address of the cluster, as ``tcp://host:8786`` for Dask; by default one is started on this machine.
    """
    if not isinstance(workers, int) or workers == 0:
        raise ValueError(f"workers: expected the number of processes, or -1 for one a core, found {workers!r}")
    with ExitStack() as stack:
        if backend == "dask":
            from dask.distributed import Client, LocalCluster

            if scheduler is None:
                cores = None if workers < 0 else workers
                local = LocalCluster(n_workers=cores, threads_per_worker=1, dashboard_address=None)
                scheduler = stack.enter_context(local).scheduler_address
            stack.enter_context(Client(scheduler))
        elif backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            ray.init(address=scheduler, ignore_reinit_error=True)
            register_ray()
        stack.enter_context(parallel_config(backend, n_jobs=workers))
        calls = (delayed(function)(*each) for each in arguments)
        if backend == "ray":  # whose results come all at once in the end: joblib itself shows the time left
            yield from Parallel(verbose=5)(calls)
            return
        results = Parallel(return_as="generator_unordered")(calls)
        yield from tqdm(results, description, total=finished + len(arguments), initial=finished, unit="video")
