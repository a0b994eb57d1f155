# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import psutil
import pytest
from blob_bundles import ROOT, SEGMENTATION, make_bundle, make_studies, truth
from blob_scene import APP, infer, mask, overlap

from endofm_monai.apps.monai_label.main import _end_with

SECONDS = 600  # more than enough on a machine that does other things as well


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[httpx.Client, subprocess.Popen, Path]]:
    """A server as a user starts it."""
    bundle = make_bundle(tmp_path / "bundles", "segmentation")
    studies = make_studies(tmp_path / "studies")
    app = shutil.copytree(APP, tmp_path / "app")  # the server writes logs there
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--conf", "bundles_dir", str(bundle.parent), "--host", "127.0.0.1", "--port", str(port)]
    python_path = f"{ROOT / 'tests' / 'support'}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": python_path, "MONAI_LABEL_APP_CONF": "{}"}
    with (
        (tmp_path / "log").open("wb") as log,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as http,
    ):
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return http.get("/info/").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait(answers)
            yield http, process, bundle
        finally:
            process.kill()


@pytest.mark.timeout(2 * SECONDS)
def test_server_is_started_used_trained_and_stopped(server, tmp_path):
    http, process, bundle = server
    found = mask(infer(http, SEGMENTATION, "image", "case_0004"))
    assert overlap(found > 0, truth(4) | truth(5)) > 0.9

    for index in range(3):
        answer = infer(http, SEGMENTATION, "image", f"case_{index:04d}")
        label = {"label": ("mask.png", answer.content)}
        assert http.put("/datastore/label", params={"image": f"case_{index:04d}"}, files=label).status_code == 200
    assert http.post(f"/train/{SEGMENTATION}", json={"max_epochs": 1, "device": "cpu"}).status_code == 200
    wait(lambda: http.get("/train/").json()["status"] in ("DONE", "ERROR"))
    assert http.get("/train/").json()["status"] == "DONE", http.get("/train/").json()["details"]
    assert (bundle / "models" / "monai_label" / "model.pt").is_file()
    assert mask(infer(http, SEGMENTATION, "image", "case_0004")).shape == found.shape

    # a server that ends takes a training with it, and its workers
    assert http.post(f"/train/{SEGMENTATION}", json={"max_epochs": 1000, "num_workers": 1}).status_code == 200
    parent = psutil.Process(process.pid)
    wait(lambda: len(parent.children(recursive=True)) > 1)  # the training, and the worker of its loader
    children = parent.children(recursive=True)
    process.terminate()
    process.wait(SECONDS)
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert psutil.wait_procs(children, SECONDS)[1] == []


def start_a_training(connection: Connection) -> None:
    child = multiprocessing.get_context("fork").Process(target=_end_with, args=(os.getpid(),))
    child.start()
    connection.send(child.pid)
    child.join()


def test_a_server_that_is_killed_takes_a_training_with_it():
    near, far = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=start_a_training, args=(far,))
    server.start()
    training = psutil.Process(near.recv())
    assert training.is_running()
    server.kill()
    server.join()
    assert psutil.wait_procs([training], SECONDS)[1] == []
