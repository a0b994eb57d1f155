# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import functools
import json
import os
import reprlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import Depends, FastAPI, HTTPException, Request
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, model, scoring, train, wsi_infer
from monailabel.utils.others.generic import name_to_device
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from endofm_monai.data.readers.opener import is_numbered
from endofm_monai.utils import as_device

MAX_NOTE_BYTES, MAX_NOTE_DEPTH = 1 << 16, 20


def _usable(asked: Any) -> torch.device:
    """The device of a name in torch or in the lists that MONAI Label shows; without one the best."""
    asked = asked[0] if isinstance(asked, list) and asked else asked
    return as_device(name_to_device(asked) if isinstance(asked, str) or not asked else asked)


def _past(seconds: int) -> int:
    if seconds > time.time() + 60:  # of another clock
        raise ValueError("must not be in the future")
    return seconds


class AnyRequest(BaseModel):
    """What every request may say; what else it says is passed over, as stock clients say many things."""

    model_config = ConfigDict(allow_inf_nan=False, validate_default=True)
    device: Annotated[Any, AfterValidator(_usable)] = None
    model: str = ""
    method: str = ""
    strategy: str = ""
    label_tag: str = "final"
    gpus: Annotated[str, Field(pattern=r"^(all|\d+(,\d+)*)?$")] = "all"  # becomes CUDA_VISIBLE_DEVICES
    bundle_path: None = None  # would become part of PYTHONPATH


class InferRequest(AnyRequest):
    """A question about an image; see :class:`~endofm_monai.apps.monai_label.lib.infers.EndoInferTask`."""

    image: str = ""
    frame: int | None = None
    context: bool = True
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    output: Literal["mask", "dsa", "asap", "json"] | None = "mask"
    save_label: bool = False


class BatchRequest(InferRequest):
    """A question about many images."""

    images: str | list[str] = "all"
    multi_gpu: bool = True
    max_batch_size: Annotated[int, Field(ge=0)] = 0
    max_workers: Annotated[int, Field(ge=0, le=64)] = 1


class SlideRequest(wsi_infer.WSIInput):
    """A question in the form for whole-slide images."""

    params: InferRequest | None = None


class TrainRequest(AnyRequest):
    """Begin with the weights in use? How long, how much at once, and the share of the labels that choose the best."""

    pretrained: bool = True
    max_epochs: Annotated[int, Field(ge=1, le=1000)] = 50
    val_split: Annotated[float, Field(ge=0, lt=1)] = 0.2
    batch_size: Annotated[int, Field(ge=1, le=64)] | None = None
    num_workers: Annotated[int, Field(ge=0, le=os.cpu_count() or 1)] = 0


class ScoringRequest(AnyRequest):
    """How many images to score; 0 is all."""

    max_samples: Annotated[int, Field(ge=0)] = 0


class SampleRequest(AnyRequest):
    """Frames of a part of a video, and who asks."""

    window: Annotated[int, Field(ge=1)] = 8
    client_id: Annotated[str, Field(max_length=150)] | None = None


Past = Annotated[int, Field(ge=0), AfterValidator(_past)]


class Sample(BaseModel):
    """When a strategy gave an image, and whom."""

    ts: Past = 0
    client_id: str | None = None


class Notes(BaseModel):
    """What may be noted of an image or label: anything, but what the server itself reads has its form."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")
    uncertainty: dict[str, tuple[float, str]] = {}  # of each model, and by which weights
    strategy: dict[str, Sample] = {}
    ts: Past = 0
    name: str = ""


Schema = TypeVar("Schema", bound=BaseModel)
ROUTERS: dict[Any, type[BaseModel]] = {
    infer: InferRequest,
    wsi_infer: SlideRequest,
    batch_infer: BatchRequest,
    train: TrainRequest,
    scoring: ScoringRequest,
    activelearning: SampleRequest,
    datastore: Notes,
}


def parse(schema: type[Schema], content: Any) -> Schema:
    """Check content against a schema; an ``HTTPException`` says in a line which key is not as it should be."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "params"
        reason = first["msg"].removeprefix("Value error, ").partition(" or instance of")[0]
        named = reason if reason[0] == "`" else f"`{key}`: {reason}, found {reprlib.repr(first['input'])}."
        raise HTTPException(400, named) from error


def parse_text(schema: type[Schema], key: str, text: str) -> Schema:
    """Check a form's field, a JSON object; likewise."""
    try:
        content = json.loads(text or "{}")
        length, depth = len(json.dumps(content, allow_nan=False, ensure_ascii=False).encode()), _depth(content)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"`{key}`: must be a JSON object, without NaN, but {error}.") from error
    if length > MAX_NOTE_BYTES or depth > MAX_NOTE_DEPTH:
        raise HTTPException(400, f"`{key}`: must have {MAX_NOTE_BYTES} bytes and {MAX_NOTE_DEPTH} levels at most.")
    return parse(schema, content)


@functools.cache
def check_requests(app: FastAPI) -> None:
    """Let the server check what a client says before an endpoint of MONAI Label's sees it."""
    before = list(app.router.routes)
    for module, schema in ROUTERS.items():
        app.include_router(module.router, dependencies=[Depends(_check(schema))], include_in_schema=False)
    app.include_router(model.router, dependencies=[Depends(_refuse_weights)], include_in_schema=False)
    app.router.routes[:] = [*app.router.routes[len(before) :], *before]  # the first that fits is taken


def _check(schema: type[BaseModel]) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        _check_query(request)
        if "form" in request.headers.get("content-type", ""):
            form = await request.form()
            if schema is Notes:
                _check_file_name(getattr(form.get("file"), "filename", None) or "", request.query_params.get("image"))
            for key in {"params", "info", "wsi"} & set(form):
                parse_text(schema, key, str(form[key]))
        elif body := await request.body():
            try:
                content = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise HTTPException(400, f"`params`: must be a JSON object, but {error}.") from error
            parse(schema, {} if content is None else content)

    return check


def _check_query(request: Request) -> None:
    if request.query_params.get("session_id"):
        raise HTTPException(400, "`session_id`: there are no sessions; name an `image`, or send a `file`.")
    if (output := request.query_params.get("output")) in ("image", "dicom_seg") and "model" in request.path_params:
        model = request.path_params["model"]
        if output == "dicom_seg" or model.endswith(("_detection", "_classification")):
            raise HTTPException(400, f"`output`: {model} gives no {output}, but `json`.")


def _check_file_name(path: str, image: str | None) -> None:
    """Refuse a file whose name MONAI Label would cut to make the name of an ``image`` that has none yet."""
    name = os.path.basename(path)
    short = name.partition(".")[0]  # MONAI Label takes what follows for the suffix
    cut = "several dots" if name.count(".") > 1 else "a number for a suffix" if is_numbered(name) else ""
    if cut and name != short and image in (None, "", short):
        raise HTTPException(400, f"`image`: {name} has {cut} and would be {short!r}; name it otherwise.")


def _refuse_weights(request: Request) -> None:
    if request.method == "PUT":
        raise HTTPException(405, "Weights come with a bundle or from its training: no client gives a server others.")


def _depth(content: Any) -> int:
    parts = list(content.values()) if isinstance(content, dict) else content
    return 1 + max(map(_depth, parts), default=0) if isinstance(parts, list) else 1
