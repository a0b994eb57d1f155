# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.app import app
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.others.generic import strtobool

import endofm_monai
from endofm_monai.apps.monai_label.lib.datastore import CheckedDatastore
from endofm_monai.apps.monai_label.lib.infers import EndoInferTask, UncertainFrames, Uncertainty
from endofm_monai.apps.monai_label.lib.requests import check_requests
from endofm_monai.apps.monai_label.lib.trainers import EndoTrainTask
from endofm_monai.inferers import Bundle, BundleError, find_bundles

logger = logging.getLogger(__name__)

SERVER = "ENDOFM_MONAI_SERVER"  # environment variable with the server's process number, for those that it starts


class Known(dict[str, Any]):
    """Tasks that a request may ask for by their names; another name is answered by an ``HTTPException``."""

    def __init__(self, what: str, tasks: Mapping[str, Any]) -> None:
        super().__init__(tasks)
        self.what = what

    def get(self, name: str, default: Any = None) -> Any:
        """The task of this name, where one is asked for."""
        if name and name not in self:
            raise HTTPException(404, f"There is no {self.what} {name!r}; there are {', '.join(self)}.")
        return super().get(name, default)


class EndoFMApp(MONAILabelApp):
    """Annotation of endoscopy frames and videos with the project's bundles; it uses no network.

    Settings, ``--conf KEY VALUE``:

    * ``bundles_dir``: folder with the bundles; by default ``model`` in the app's folder.
    * ``models``: names of bundles separated by commas; by default all for segmentation, detection and classification.
    * ``auto_update_scoring``: score all images in the background, at the start, after each training and whenever a
      strategy has given an image; by default only when asked to.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        os.environ.setdefault("PYTHONPATH", "")  # MONAI Label's background tasks fail silently without it
        self._tasks = load_tasks(conf.get("bundles_dir") or os.path.join(app_dir, "model"), conf.get("models", "all"))
        if server := os.environ.get(SERVER):  # which has started this process, for a training, say
            threading.Thread(target=_end_with, args=(int(server),), daemon=True).start()
        description = "Segmentation, detection and classification of polyps in endoscopy video"
        super().__init__(app_dir, studies, conf, "Endo-FM", description, version=endofm_monai.__version__)
        check_requests(app)
        self._auto_update_scoring = strtobool(conf.get("auto_update_scoring", "false"))

    def init_datastore(self) -> Datastore:
        if "://" in self.studies:
            raise ValueError(f"`studies` must be a folder, found {self.studies}: this app uses no network.")
        return CheckedDatastore(self.studies, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def init_infers(self) -> Known:
        return Known("model", self._tasks)

    def init_trainers(self) -> Known:
        return Known("model", {name: EndoTrainTask(task.bundle) for name, task in self._tasks.items()})

    def init_strategies(self) -> Known:
        uncertain = {f"uncertainty_{name}": UncertainFrames(task) for name, task in self._tasks.items()}
        return Known("strategy", {"random": Random(), "first": First(), **uncertain})

    def init_scoring_methods(self) -> Known:
        return Known("method", {name: Uncertainty(task) for name, task in self._tasks.items()})

    def _load_sessions(self, load: bool = False) -> None:
        """No sessions: their names reach the file system unchecked, and frames do not need them."""

    def server_mode(self, mode: bool) -> None:
        """Serve; MONAI Label says so when it starts."""
        super().server_mode(mode)
        os.environ[SERVER] = str(os.getpid())

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request about an image of the datastore, or one that came with it."""
        image = str(request.get("image"))
        if not (datastore or self.datastore()).get_image_uri(image):
            if not _is_upload(image):
                raise HTTPException(404, f"There is no image {image!r}.")
            request = {**request, "context": False}  # the files beside it are other people's
        return super().infer(request, datastore)

    infer_wsi = infer  # endoscopy has no whole-slide images

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Likewise about many images; one that has no answer gets the reason as ``error``, and the others go on."""
        self._infers.get(str(request.get("model")))
        several = torch.cuda.is_available() and request.get("multi_gpu", True)  # of none MONAI Label takes the first

        def answer(request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
            try:
                return self.infer(request, datastore)
            except (HTTPException, MemoryError) as error:
                return {"error": getattr(error, "detail", None) or str(error)}

        return self._batch_infer({**request, "multi_gpu": several}, datastore or self.datastore(), answer)


def _end_with(server: int) -> None:
    """End this process when the server that started it has ended: nobody can ask for its work, or stop it."""
    while os.getppid() == server:
        time.sleep(1)
    os._exit(1)


def load_tasks(folder: str, names: str) -> dict[str, EndoInferTask]:
    """Make the infer task of each bundle; one that cannot be used is left out with a warning."""
    tasks, paths = {}, find_bundles(folder, names)
    if not paths:
        raise BundleError(f"{folder}: holds no bundle; `bundles_dir` is a folder of bundles, not one of them.")
    for path in paths:
        try:
            tasks[path.name] = EndoInferTask(Bundle(path))
        except ValueError as error:  # of a setting, too
            logger.warning(f"Left out: {error if str(path) in str(error) else f'{path}: {error}'}")
    if not tasks:
        raise BundleError(f"{folder}: none of its bundles ({names}) is usable; the log says why.")
    return tasks


def _is_upload(path: str) -> bool:
    """Whether a path is of a file that the server has just written, under a name that nobody can guess."""
    real = Path(os.path.realpath(path))
    is_temporary = str(real.parent) == os.path.realpath(tempfile.gettempdir())
    return is_temporary and real.is_file() and real.name.startswith(tempfile.gettempprefix())
