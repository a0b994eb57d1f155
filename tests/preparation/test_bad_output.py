# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Places that cannot be written to."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_sets import prepare


def error_in_a_process(function: Callable[[], Any]) -> str:
    """The error of a function in a process of its own, whose limits or rights it may change."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        try:
            function()
            sender.send("none")
        except OSError as error:
            sender.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert receiver.poll(), process.exitcode
    return receiver.recv()


def test_files_cannot_grow(videos, tmp_path):
    output = tmp_path / "out"

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        prepare(videos, output, mode="encode")

    assert str(output) in error_in_a_process(fill_up)
    assert not (output / "manifest.json").exists()
    assert not [path for path in output.rglob("*.mp4") if not path.name.startswith(".")]
    assert len(prepare(videos, output, mode="encode")["videos"]) == 6


def test_no_space_left(videos, tmp_path, monkeypatch):
    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("endofm_monai.utils.files.os.fsync", fail)
        with pytest.raises(OSError, match=r"could not write: No space left on device: .*out/settings\.json"):
            prepare(videos, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert len(prepare(videos, tmp_path / "out")["videos"]) == 6


def test_a_folder_that_is_read_only(videos):
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(videos, folder / "in")
        (folder / "out").mkdir(mode=0o555)

        def without_rights() -> None:
            if os.geteuid() == 0:  # to whom nothing is read-only
                os.seteuid(65534)
            prepare(folder / "in", folder / "out")

        error = error_in_a_process(without_rights)
        assert f"could not write: Permission denied: '{folder / 'out'}" in error
        assert list((folder / "out").iterdir()) == []


def test_a_file_in_the_place_of_a_folder(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="could not write.*file/out"):
        prepare(videos, tmp_path / "file" / "out")
