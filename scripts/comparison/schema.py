# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What the file of a comparison may say."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from comparison.run import OWN, SCORES, known_scores
from monai.bundle import ConfigParser
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from endofm_monai.utils import nearest_key

T = TypeVar("T")


def _folder_name(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError("must be a name that a folder can have")
    return name


def _without_own(settings: dict[str, Any]) -> dict[str, Any]:
    if own := sorted(OWN & settings.keys()):
        raise ValueError(f"`{own[0]}` is set by the comparison itself")
    return settings


def _different(values: list[T]) -> list[T]:
    if len({*values}) < len(values):
        raise ValueError("must be different")
    return values


Name = Annotated[str, AfterValidator(_folder_name)]
Settings = Annotated[dict[str, Any], AfterValidator(_without_own)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Part(BaseModel):
    """A mapping with known keys; one that is left empty counts as not said."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return {} if content is None else content
        for key in content:
            if key not in cls.model_fields:
                raise ValueError(f"there is no key `{key}`.{nearest_key(str(key), cls.model_fields)}")
        return {key: value for key, value in content.items() if value is not None}


class Training(Part):
    """A pre-training."""

    configs: Annotated[list[str], Field(min_length=1)] = ["train"]
    settings: Settings = {}


class Start(Part):
    """A starting point, perhaps of some tasks alone."""

    pretraining: str | None = None
    configs: list[str] = []
    settings: Settings = {}
    tasks: Annotated[list[str], Field(min_length=1)] | None = None


class Task(Training):
    """A training on labels, and its evaluation."""

    bundle: Literal["classification", "segmentation", "detection"]
    training: list[str] = []
    shares: dict[Share, Settings] = {}
    evaluation: Settings = {}
    score: str = ""


class Comparison(Part):
    """A whole comparison."""

    output: Annotated[str, Field(min_length=1)]
    settings: Settings = {}
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_different)] = [0]
    shares: Annotated[list[Share], Field(min_length=1), AfterValidator(_different)] = [1.0]
    pretrainings: dict[Name, Training] = {}
    starts: Annotated[dict[Name, Start], Field(min_length=1)]
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_references(self) -> "Comparison":
        _refuse_weights("settings", self.settings)
        for name, task in self.tasks.items():
            for settings in (task.settings, task.evaluation, *task.shares.values()):
                _refuse_weights(f"tasks, {name}", settings)
            _refuse_unknown(f"tasks, {name}: `shares`", task.shares, self.shares)
            if "dataset_dir" not in (settings := {**self.settings, **task.settings}):
                raise ValueError(f"tasks, {name}: `settings` must name the `dataset_dir`")
            task.score, known = task.score or SCORES[task.bundle][0], known_scores(task.bundle, settings)
            if task.score not in known and not (task.bundle == "detection" and task.score.startswith("box_")):
                raise ValueError(f"tasks, {name}: there is no `score` {task.score}; there are {', '.join(known)}")
        for name, start in self.starts.items():
            made_by = () if start.pretraining is None else [start.pretraining]
            _refuse_unknown(f"starts, {name}: `pretraining`", made_by, self.pretrainings)
            _refuse_unknown(f"starts, {name}: `tasks`", start.tasks or (), self.tasks)
            if of_task := sorted({"dataset_dir", "datalist"} & start.settings.keys()):
                raise ValueError(f"starts, {name}: `{of_task[0]}` belongs to the settings of a task")
            weights = start.settings.get("backbone_weights")
            if made_by and weights is not None:
                raise ValueError(f"starts, {name}: has both `pretraining` and `backbone_weights`, choose one")
            if weights is not None and not (isinstance(weights, str) and Path(weights).is_file()):
                raise ValueError(f"starts, {name}: `backbone_weights` must be a file, found {weights!r}")
        return self


def _refuse_weights(where: str, settings: dict[str, Any]) -> None:
    """Every start would begin with them, whatever it is called."""
    if weights := sorted({"backbone_weights", "weights"} & settings.keys()):
        raise ValueError(f"{where}: `{weights[0]}` belongs to the settings of a start")


def _refuse_unknown(where: str, names: Iterable[Any], known: Collection[Any]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{where} names {unknown[0]}, there are {', '.join(map(str, known)) or 'none'}")


def read_comparison(path: Path) -> Comparison:
    """Read a comparison, and check what can be before the first run."""
    try:
        return Comparison.model_validate(ConfigParser.load_config_file(str(path)))
    except ValidationError as error:
        first = error.errors()[0]
        key, reason = ", ".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        found = "" if first["type"] in ("missing", "value_error") else f", found {first['input']!r:.80}"
        line = f"{path}: {f'{key}: ' if key else ''}{reason.partition(' or instance')[0]}{found}"
        raise ValueError(line + "." * (line[-1] not in ".?")) from error
    except (YAMLError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())}).") from error
