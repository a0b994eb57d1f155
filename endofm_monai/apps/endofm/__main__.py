# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The command ``endofm``: a door to the bundles for those who do not want to know of configurations."""

import json
import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple

import endofm_monai
from endofm_monai.apps.endofm.findings import status_of
from endofm_monai.apps.endofm.report import write_report
from endofm_monai.data import clip_state, list_videos, split_frames
from endofm_monai.inferers import Bundle, BundleError, find_bundles
from endofm_monai.inferers.bundle import TASKS
from endofm_monai.utils import INTERRUPTED, check_writable, read_json, run_from_command_line, sha256, write_json
from endofm_monai.utils.errors import close_bars, hush_engines
from endofm_monai.utils.settings import literal, literal_texts, nearest_key, top_key

Item = Mapping[str, Any]
BUNDLES = Path(endofm_monai.__file__).parents[1] / "bundle"  # of the checkout
NAMES = {"--output", "--task", "--bundle", "--device", "--mode", "--configs", "--weights"}  # options that are text
NEUTRAL = {"device", "num_workers", "on_error", "max_broken_share", "part_minutes"}  # on which results do not depend
LISTING = {"datalist", "section", "single_images", "part_minutes"}  # settings that say which videos there are
OWN = {"dataset_dir", "bundle_root", "config_file", "workflow_type"}  # settings that the commands make themselves
REPORTED = {"segmentation": ("coco", "overlay"), "detection": ("csv", "overlay")}  # formats that the report is made of


def predict(
    input: str,
    output: str,
    *,
    task: str | None = None,
    bundle: str | None = None,
    device: str | None = None,
    mode: str = "offline",
    **settings: Any,
) -> None:
    """Find polyps in videos or pictures, and show them in ``OUTPUT/report.html``.

    ``OUTPUT/<task>`` has what the bundle of each task writes. The same command again goes on with what is left.

    Args:
        input: a video, picture, DICOM or NIfTI file; or a folder of videos, or of pictures, which are then the frames
            of a clip, or with ``--single_images True`` have nothing to do with each other.
        output: the folder to write to, in short ``-o``.
        task: segmentation, detection or classification, or some of them, separated by commas; by default all whose
            bundles have weights.
        bundle: a bundle, or a folder of bundles; by default those of the checkout.
        device: where to compute; by default the GPU, if there is one.
        mode: "offline", or "online", which looks at no later frame, as in live use.
        settings: further keys of the bundles' ``inference.json``, as ``--frame_size 256``; ``--part_minutes 10`` goes
            through a long video in parts, of which those that are done stay when it is stopped.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("endofm_monai.utils.compute").setLevel(logging.INFO)  # says what it computes in
    hush_engines()
    _refuse(settings, {*OWN, "output_dir", "load_pretrain"})
    folder, source = Path(output).resolve(), os.path.abspath(input)
    if folder.is_relative_to(os.path.realpath(source)):
        raise ValueError(f"{output}: lies in the input {input}; choose an `--output` outside of it.")
    if not os.path.exists(split_frames(source)[0]):
        raise FileNotFoundError(f"{input}: there is no such file or folder.")
    given = {**settings, "mode": mode} | ({"device": device} if device is not None else {})
    bundles = _open_bundles(_chosen_bundles(bundle, task), folder, {**given, "dataset_dir": literal(source)})
    videos = list_videos(source, **{key: settings[key] for key in LISTING & settings.keys()})
    for opened in bundles:  # what is wrong is told before anything is written
        opened.get("initialize")
        opened.load_weights(opened.get("network"))
    claim = _claim(folder, source, videos, bundles, given)
    for opened in bundles:
        opened.get("evaluator")
    check_writable(folder)
    write_json(folder / "run.json", claim)
    try:
        for opened in bundles:
            if len(opened.get("dataset")):
                opened.get("evaluator").run()
    except KeyboardInterrupt:
        close_bars()
        counts = [f"{len(videos) - len(_broken(folder, videos, [opened]))} by {opened.task}" for opened in bundles]
        done = f"of {len(videos)} videos {', '.join(counts)} are done"
        hint = "" if "part_minutes" in settings else " (of long videos, `--part_minutes 10` keeps more)"
        print(f"stopped: {done}; the same command goes on with the others{hint}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"The report: {write_report(folder, videos)}")
    if broken := _broken(folder, videos, bundles):
        some = ", ".join(broken[:3]) + ", ..." * (len(broken) > 3)
        hint = " Pictures that are no clip need `--single_images True`." if os.path.isdir(videos[0]["image"]) else ""
        raise ValueError(f"{len(broken)} of {len(videos)} videos could not be read to their end: {some}.{hint}")


def _refuse(settings: Mapping[str, Any], own: set[str]) -> None:
    if found := [key for key in settings if top_key(key) in own]:
        raise ValueError(f"`{found[0]}`: the command sets it itself; see `endofm --help` for what it takes.")


def _find(bundle: str | None) -> tuple[Path, list[Path]]:
    """A bundle, or a folder of bundles, and which bundles these are."""
    root = Path(os.path.abspath(bundle or BUNDLES))
    if not root.is_dir():
        raise BundleError(f"{root}: is no existing folder; name a bundle, or the folder of bundles, by `--bundle`.")
    return root, [root] if (root / "configs").is_dir() else find_bundles(root)


def _chosen_bundles(bundle: str | None, task: str | None) -> list[Path]:
    """The bundles of the tasks, in the order of :data:`TASKS`; by default all that have weights."""
    tasks = [name.strip() for name in task.split(",")] if task is not None else list(TASKS)
    if unknown := [name for name in tasks if name not in TASKS]:
        raise ValueError(f"`task` must be some of {', '.join(TASKS)}, separated by commas, found {unknown[0]!r}.")
    root, found = _find(bundle)
    by_task = {path.name.rpartition("_")[2]: path for path in found}
    if missing := [name for name in tasks if name not in by_task] if task is not None else []:
        raise BundleError(f"{root}: there is no bundle for {missing[0]}; name its folder by `--bundle`.")
    if found == [root] and not root.name.endswith(TASKS):
        raise BundleError(f"{root}: the folder's name must end in one of {', '.join(TASKS)}.")
    paths = [by_task[name] for name in TASKS if name in tasks and name in by_task]
    if task is not None or len(paths) == 1:
        return paths
    with_weights = [path for path in paths if any((path / "models").rglob("model.*"))]
    if not with_weights:
        raise BundleError(f"{root}: there is no bundle with weights; train one, or name its folder by `--bundle`.")
    return with_weights


def _open_bundles(paths: Sequence[Path], folder: Path, settings: Mapping[str, Any]) -> list[Bundle]:
    """Open bundles that write to a folder each; each gets the settings that it has."""
    configs = [read_json(path / "configs" / "inference.json", dict) for path in paths]
    known = set().union(*configs)
    if unknown := [key for key in settings if top_key(key) not in known]:
        names = " and ".join(path.name for path in paths)
        raise ValueError(f"`{unknown[0]}`: inference.json of {names} has no such key.{nearest_key(unknown[0], known)}")
    bundles = []
    for path, config in zip(paths, configs, strict=True):
        task = path.name.rpartition("_")[2]
        own = {"max_broken_share": 1.0, **{key: value for key, value in settings.items() if top_key(key) in config}}
        if isinstance(config.get("amp"), str):  # left to the device
            own = {"amp": None, **own}
        if "formats" in own:
            own["formats"] = sorted({*ensure_tuple(own["formats"]), *REPORTED[task]})
        bundles.append(Bundle(path, **own, output_dir=literal(str(folder / task)), load_pretrain=False))
    return bundles


def _claim(
    folder: Path, source: str, videos: Sequence[Item], bundles: Sequence[Bundle], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``run.json`` is to note of the results of a folder; refuses to mix others with them."""
    former: dict[str, Any] = {"input": source, "videos": {}, "models": {}}
    if (path := folder / "run.json").exists():
        former = read_json(path, dict)
    elif others := [entry.name for entry in folder.glob("[!.]*")]:
        raise FileExistsError(f"{folder}: holds other files ({min(others)}); choose another `--output`.")
    if former["input"] != source:
        raise FileExistsError(f"{folder}: holds the results of {former['input']}; choose another `--output`.")
    states = {item["name"]: clip_state(item["image"]) for item in videos}
    for name, state in states.items():
        if former["videos"].get(name, state) != state:
            raise FileExistsError(f"{folder}: {name} is another file than when it began; choose another `--output`.")
    own = json.loads(json.dumps({key: value for key, value in settings.items() if key not in NEUTRAL}))
    models = {opened.task: _model(folder, opened, former["models"].get(opened.task, {}), own) for opened in bundles}
    return {"input": source, "videos": states, "models": {**former["models"], **models}}


def _model(folder: Path, opened: Bundle, former: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run.json`` is to note of a bundle; refuses other weights and settings than the ``former`` ones."""
    model: dict[str, Any] = {
        "bundle": str(opened.path),
        "version": opened.version,
        "weights": str(opened.weights),
        "sha256": sha256([str(opened.weights)]),
        "device": str(opened.get("device")),
        "precision": str(opened.get("predictor").precision).removeprefix("torch."),
        "settings": settings,
    }
    for key, what in (("sha256", "weights"), ("settings", "settings")):
        if former.get(key, model[key]) != model[key]:
            others = f"results of other {what} ({opened.task})"
            raise FileExistsError(f"{folder}: holds {others}; choose another `--output`.")
    for key in ("device", "precision"):  # it may go on with what another device began, or find all done
        used = former[key].split(", ") if key in former else []
        now = [model[key]] if len(opened.get("dataset")) or not used else []
        model[key] = ", ".join(dict.fromkeys([*used, *now]))
    return model


def _broken(folder: Path, videos: Sequence[Item], bundles: Sequence[Bundle]) -> list[str]:
    """Names of the videos that at least one bundle has no whole result of."""
    names = [item["name"] for item in videos]
    return [name for name in names if any(status_of(folder, opened.task, name) != "ok" for opened in bundles)]


def train(task: str, data: str, *, bundle: str | None = None, configs: str = "train", **settings: Any) -> None:
    """Train the network of a task's bundle: ``monai.bundle run`` of its ``train.json``.

    Args:
        task: segmentation, detection or classification.
        data: folder of a prepared dataset, with its ``datalist.json``.
        bundle: the bundle; by default that of the checkout.
        configs: the bundle's configurations, separated by commas, each of which changes those before it.
        settings: keys of these configurations, as ``--epochs 10``.
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, found {task!r}.")
    _train(Path(bundle or BUNDLES / f"endofm_polyp_{task}"), data, configs, settings)


def pretrain(data: str, *, bundle: str | None = None, configs: str = "train", **settings: Any) -> None:
    """Pre-train a backbone on videos without labels: ``monai.bundle run`` of ``endofm_pretraining``'s ``train.json``.

    Args:
        data: folder with videos.
        bundle: the bundle; by default that of the checkout.
        configs: see ``train``; "train,small" is the recipe for hundreds of clips.
        settings: keys of these configurations.
    """
    _train(Path(bundle or BUNDLES / "endofm_pretraining"), data, configs, settings)


def _train(bundle: Path, data: str, configs: str, settings: dict[str, Any]) -> None:
    _refuse(settings, OWN)
    names = [name.strip() for name in configs.split(",")]
    if names[0] != "train":
        raise ValueError(f"`configs` must begin with train, which the others change, found {configs!r}.")
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    root = {"bundle_root": literal(str(bundle)), "dataset_dir": literal(data)}
    workflow = ConfigWorkflow(files, workflow_type="train", **root, **literal_texts(settings))
    hush_engines()
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def info(bundle: str | None = None) -> None:
    """Say which versions, device, bundles and weights there are.

    Args:
        bundle: a bundle, or a folder of bundles; by default that of the checkout.
    """
    logging.basicConfig(format="%(message)s")
    root, found = _find(bundle)
    has_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if has_gpu else f"CPU, {torch.get_num_threads()} threads"
    versions = f"python {platform.python_version()}, torch {torch.__version__}, monai {monai.__version__}"
    print(f"endofm-monai {endofm_monai.__version__} ({versions})\ndevice: {device}\nbundles in {root}:")
    for path in found:
        try:
            opened = Bundle(path)
            weights = Path(str(opened.weights))  # a bundle without them does not open
            listed = "as shared" if opened.check_weights(weights) else "not in large_files.yml"
            text = f"{weights}, {weights.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256([weights])}, {listed}"
            print(f"  {path.name} {opened.version}: {text}")
        except ValueError as error:
            print(f"  {path.name}: {error}")


def _quoted(words: Sequence[str]) -> list[str]:
    """Words of which fire takes paths and names as they are typed: ``1e5`` for no number, ``a,b`` for no list."""
    quoted, waiting = list(words[:1]), ""  # the option, if any, whose value is the next word
    for word in [*words[1:], "-"]:  # after the last word no option waits for one
        is_option = word.startswith("-")
        if is_option and waiting in NAMES:
            sys.exit(f"error: `{waiting}` needs a value.")
        name, equals, value = word.partition("=") if is_option else (waiting, "", word)
        name = "--output" if name == "-o" else name
        waiting = name if is_option and not equals else ""
        if not waiting and name in {"", *NAMES}:
            if value.startswith("#frames="):
                sys.exit(f"error: {value}: is no path; is a variable of the shell not set?")
            value = value if DefaultParseValue(value) == value else repr(value)
        quoted.append(f"{name}{equals}{value}" if is_option else value)
    return quoted[:-1]


def main() -> None:
    """Run the command."""
    commands = {"predict": predict, "train": train, "pretrain": pretrain, "info": info}
    run_from_command_line(commands, command=_quoted(sys.argv[1:]), name="endofm")


if __name__ == "__main__":
    main()
