# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings are checked once, before anything runs: their names, their kinds, the classes and the device."""

import inspect
import logging
import math
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from endofm_monai.utils.errors import show_tracebacks
from endofm_monai.utils.files import PathLike

__all__ = ["as_class_names", "as_device", "check_number", "check_run", "check_settings", "literal_texts", "nearest_key"]

logger = logging.getLogger(__name__)

RUN_IDS = ("initialize", "run", "finalize")
OF_MONAI = {*DEFAULT_MLFLOW_SETTINGS["configs"], "save_execute_config", "bundle_root", "use_click", "imports", *RUN_IDS}
FROM_1 = (
    *("epochs", "batch_size", "clip_repeats", "accumulation_steps"),
    *("val_interval", "checkpoint_interval", "probe_interval", "picture_interval", "last_blocks", "largest_components"),
    *("num_frames", "sampling_rate", "frame_size", "num_windows", "num_crops", "clips_per_video", "key_frame_interval"),
    *("window", "stride", "window_batch_size", "block", "num_prototypes", "num_concepts", "num_classes", "global_size"),
    *("local_size", "img_size", "global_frames", "local_frames", "hidden_dim", "bottleneck_dim", "count"),
)
FROM_0 = (
    *("num_workers", "seed", "frozen_blocks", "num_supports", "test_supports", "bootstrap_resamples", "resamples"),
    *("queue_length", "freeze_last_layer_epochs", "epochs_without_local_loss", "adapters", "max_gap", "min_area"),
)
ABOVE_0 = {
    *("std", "class_weights", "part_minutes", "learning_rate", "base_learning_rate", "max_gradient_norm"),
    *("teacher_temperature", "student_temperature"),
}
TO_1 = {  # numbers that are shares, probabilities and the like
    *("teacher_momentum", "max_broken_share", "threshold", "picture_threshold", "color_jitter_prob"),
    *("turn_prob", "iou", "mean"),
}
BELOW_1 = {"label_smoothing", "average_decay", "token_drop"}  # with 1 nothing is learned, moves or is left
RANGES: tuple[tuple[str, Callable[[Any], bool], Collection[str]], ...] = (
    ("a whole number from 1 on", lambda value: isinstance(value, int) and value >= 1, FROM_1),
    ("a whole number from 0 on", lambda value: isinstance(value, int) and value >= 0, FROM_0),
    ("a number above 0", lambda value: 0 < value < math.inf, ABOVE_0),
    ("a number from 0 to below 1", lambda value: 0 <= value < 1, BELOW_1),
    ("a number from 0 to 1", lambda value: 0 <= value <= 1, TO_1),
)
FROM_LEAST_TO_LARGEST = {"crop_scale", "zoom"}
ALSO: dict[str, tuple[Any, ...]] = {  # examples beside the configs', which hold an expression, null, or one kind of two
    **dict.fromkeys(("num_workers", "average_decay", "part_minutes", "threshold", "close_up"), (1,)),
    **dict.fromkeys(("amp", "augment_on_device"), (True,)),
    **dict.fromkeys(("resume", "weights", "backbone_weights", "datalist", "selection_score"), ("text",)),
    **dict.fromkeys(("ckpt_dir", "output_dir"), ("text",)),
    "activation_checkpointing": ("selective",),
    "class_weights": ("balanced", [1]),
}
KINDS: dict[Any, str] = {
    **{bool: "True or False", (int, float): "a number", str: "text", (list, tuple): "a list", dict: "a section"},
    type(None): "None",
}


def as_class_names(names: str | Sequence[str]) -> list[str]:
    """The names of classes, by class index; a name alone is one class."""
    found = [names] if isinstance(names, str) else list(names) if isinstance(names, (list, tuple)) else []
    if not found or not all(isinstance(name, str) and name.strip() for name in found) or len({*found}) < len(found):
        raise ValueError(f"`class_names` must be a name or a list of different names, found {names!r}.")
    return found


def as_device(device: str | torch.device) -> torch.device:
    """A device by its name."""
    with suppress(AssertionError, RuntimeError, TypeError):
        if torch.empty(0, device=device).device.type != "meta":
            return torch.device(device)
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    raise ValueError(f"`device` must be one to compute on, here {' or '.join(there)}, found {device!r}.")


def _refuse_text(dtype: Any) -> None:
    raise ValueError(f"`amp_dtype` must be $torch.bfloat16 or $torch.float16, found {dtype!r}.")


def check_number(key: str, value: Any) -> None:
    """Refuse, by a ``ValueError``, what is no number that a setting of this name may have."""
    _check_kind(key, key, value, [1])


def literal(text: str) -> str:
    """A text as an expression in which MONAI finds none of its signs: it takes ``#`` for ``::`` in any text."""
    return "$" + repr(text).replace("#", r"\x23").replace("@", r"\x40")


def literal_texts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose texts, as paths, keep their ``#``; expressions and references stay as they are."""
    changed = {key: literal(value) for key, value in settings.items() if _kind(value) == "text" and "#" in value}
    return {**settings, **changed}


def check_run() -> None:
    """Check the settings of the bundle's run that calls this in its ``initialize``."""
    # MONAI merges files and command line before it calls anything, and hands the result to no one
    callers = (frame.f_locals.get("self") for frame, _ in traceback.walk_stack(None))
    workflow = next((caller for caller in callers if isinstance(caller, ConfigWorkflow)), None)
    if workflow is not None:
        ids = (workflow.init_id, workflow.run_id, workflow.final_id)
        check_settings(workflow.parser, workflow.config_root_path, ids)


def check_settings(parser: ConfigParser, folder: PathLike, ids: Collection[str] = RUN_IDS) -> None:
    """Check the names and values of merged settings against the configs, in ``folder``, that they were merged of.

    Configs of which the settings hold all keys count as merged. A warning names keys that a run of the components
    ``ids`` does not use: of other configs, or given a value although an overlay replaced what referred to them.
    """
    config: dict[str, Any] = parser.get()
    show_tracebacks(config.get("verbose_errors") is True)
    configs = list(_configs(Path(folder)))
    keys = [set(map(top_key, content)) for content in configs]
    merged = [content for content, found in zip(configs, keys, strict=True) if found <= config.keys()]
    known = {top_key(key) for content in merged for key in content}
    used = {*OF_MONAI, *ids, *_references(config), "verbose_errors"}
    for key, value in config.items():
        is_theirs = key in known and (isinstance(value, dict) or value in [content.get(key) for content in merged])
        if key in used or key.startswith("_") or is_theirs:
            continue
        if key not in set().union(*keys):
            raise ValueError(f"`{key}`: no config has such a key.{nearest_key(key, known)}")
        why = " A config replaced what would." if key in known else nearest_key(key, known)
        logger.warning(f"`{key}`: nothing uses it in this run.{why}")
    _check_arguments(parser, config, "")
    for key, check in (("class_names", as_class_names), ("device", as_device), ("amp_dtype", _refuse_text)):
        if key in config and _kind(config[key]):
            check(config[key])
    for key, value in config.items():
        _check_value(key, value, [content[key] for content in configs if key in content])
    for data in ("train::dataset::data", "validate::dataset::data") if "class_names" in config else ():
        items = parser.get(data)
        if isinstance(items, list) and any("name" not in item for item in items):  # of MONAI Label's stock app
            app = "the app in endofm_monai/apps/monai_label (docs/monai_label.md)"
            problem = "another program lists these items, which have no boxes or classes to learn from"
            raise ValueError(f"`{data}`: {problem}; take {app}, or a `datalist`.")


def _configs(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(path for path in folder.glob("*") if path.suffix[1:] in ConfigParser.suffixes):
        with suppress(OSError, ValueError):  # not one of this run, which could be read
            if isinstance(content := ConfigParser.load_config_file(path), dict):
                yield content


def top_key(key: str) -> str:
    """The name of the setting that a key, perhaps one inside it or with MONAI's sign for additions, belongs to."""
    return ReferenceResolver.split_id(key.removeprefix("+"))[0]


def _references(config: Any) -> set[str]:
    """The keys at the top that anything in a config refers to."""
    if isinstance(config, str):
        return {top_key(found) for found in ReferenceResolver.match_refs_pattern(config)}
    if not isinstance(config, (dict, list)) or (isinstance(config, dict) and config.get("_disabled_") is True):
        return set()
    return set().union(*map(_references, config.values() if isinstance(config, dict) else config))


def nearest_key(key: str, known: Collection[str]) -> str:
    """What a message about an unknown key ends with: the nearest one, if there is any like it."""
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    return f" Did you mean `{near[0]}`?" if near else " Those it has are at the top of its files."


def _check_arguments(parser: ConfigParser, config: Any, where: str) -> None:
    """Check the names of the arguments of each component, in a part of the settings, and that none is missing."""
    if not isinstance(config, (dict, list)):
        return
    for _, key, value in ReferenceResolver.iter_subconfigs(where, config):
        _check_arguments(parser, value, key)
    if isinstance(config, dict) and isinstance(config.get("_target_"), str):
        target = str(ConfigComponent(config, locator=parser.locator).resolve_module_name())
        accepted = _arguments(locate(target))
        for name in config.keys() - ConfigComponent.non_arg_keys - (accepted or config.keys()):
            near = get_close_matches(name, accepted or (), n=1, cutoff=0.5)
            hint = f" Did you mean `{where}::{near[0]}`?" if near else ""
            raise ValueError(f"`{where}::{name}`: {target} has no such argument.{hint}")
        is_made = config.get("_mode_", "default") == "default" and not config.get("_disabled_")
        if is_made and (missing := _needed(locate(target)) - config.keys()):
            advice = "of several configurations the later ones count"
            raise ValueError(f"`{where}`: {target} needs `{min(missing)}`, which nothing gives; {advice}.")


def _needed(component: Any) -> set[str]:
    """Names of the arguments without which a component cannot be made."""
    with suppress(TypeError, ValueError):  # written in C, or not found
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(component).parameters.values()
        return {each.name for each in parameters if each.kind in named and each.default is each.empty}
    return set()


def _arguments(component: Any) -> set[str] | None:
    """Names of the arguments that a component takes; None when any may be handed on."""
    names: set[str] = set()
    with suppress(TypeError, ValueError):  # written in C, or not found
        for owner in inspect.getmro(component) if inspect.isclass(component) else [component]:
            parameters = inspect.signature(owner).parameters
            names.update(parameters)
            kinds = {parameter.kind for parameter in parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                return names
            if inspect.Parameter.VAR_POSITIONAL in kinds or not owner.__module__.startswith("endofm_monai."):
                return None
    return None


def _kind(value: Any) -> str | None:
    """What a literal value is; None for expressions, references, macros, components and objects of Python."""
    if (isinstance(value, str) and value.startswith(("$", "@", "%"))) or ConfigComponent.is_instantiable(value):
        return None
    return next((kind for types, kind in KINDS.items() if isinstance(value, types)), None)


def _check_value(key: str, value: Any, defaults: Sequence[Any]) -> None:
    """Check that a literal value, and each part of a section, is of a kind that the configs have under its key."""
    if isinstance(value, dict):
        target = value.get("_target_")
        alike = [found for found in defaults if isinstance(found, dict) and found.get("_target_") == target]
        for part, content in value.items():
            _check_value(f"{key}::{part}", content, [found[part] for found in alike if part in found])
    name = ReferenceResolver.split_id(key)[-1]
    _check_kind(key, name, value, [*defaults, *ALSO.get(name, ())])


def _check_kind(key: str, name: str, value: Any, examples: Sequence[Any]) -> None:
    """Check that a literal value, or each of a list, is of the kind of an example, and a number in its range."""
    kind, kinds = _kind(value), {_kind(example) for example in examples}
    if kind == "None" and kinds & {None, "None"}:
        return
    expected = sorted(found for found in kinds if found not in (None, "None"))
    elements = [element for example in examples if isinstance(example, list) for element in example]
    if kind is None or not expected or (kind == "text" and "text" in map(_kind, elements)):  # a name alone is one
        return
    of_others = "a number from 0 on", lambda value: 0 <= value < math.inf
    number, fits = next(((number, fits) for number, fits, names in RANGES if name in names), of_others)
    is_no_path = kind == "text" and "True or False" in kinds and value.lower() in ("true", "false")
    if kind not in expected or is_no_path or (kind == "a number" and not fits(value)):
        raise ValueError(f"`{key}` must be {' or '.join(expected).replace('a number', number)}, found {value!r}.")
    if kind == "a list":
        for element in value:
            _check_kind(key, name, element, elements)
        if name in FROM_LEAST_TO_LARGEST and not (len(value) == 2 and 0 < value[0] <= value[1]):
            raise ValueError(f"`{key}` must be the smallest and the largest of two numbers above 0, found {value!r}.")
