# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch.utils.data import DataLoader
from tqdm import tqdm

from endofm_monai.utils import as_class_names
from endofm_monai.utils.errors import end_with_one_line, run_from_command_line, show_tracebacks


@pytest.fixture
def last_words(monkeypatch, capsys) -> Callable[[Callable[[], Any]], list[str]]:
    """What a run of ``monai.bundle`` that does something wrong says on stderr."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="monai.bundle.__main__"))
    end_with_one_line()

    def run(action: Callable[[], Any]) -> list[str]:
        try:
            action()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        return capsys.readouterr().err.splitlines()

    return run


def wrong_names() -> None:
    config = {"names": {"_target_": "as_class_names", "names": 5}, "run": "$len(@names)"}
    ConfigParser(config).get_parsed_content("run")


WRONG_NAMES = "error: `class_names` must be a name or a list of different names, found 5."


def test_an_error_of_the_package_is_one_line(last_words):
    assert last_words(wrong_names) == [WRONG_NAMES]


def test_ctrl_c_is_one_line(last_words):
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert last_words(interrupt) == ["interrupted"]


def test_an_error_of_the_file_system_names_the_file(last_words):
    assert last_words(lambda: Path("no/such/file").read_text()) == ["error: no/such/file: No such file or directory"]

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "full.pt")

    assert last_words(fail) == ["error: full.pt: No space left on device"]


def test_what_monai_finds_wrong_is_one_line(last_words):
    found = last_words(lambda: ConfigParser({"run": "@missing"}).get_parsed_content("run"))
    assert found == ["error: the referring item `@missing` is not defined in the config content."]


def test_an_argument_that_a_component_does_not_know_is_one_line(last_words):
    config = {"network": {"_target_": "endofm_monai.networks.nets.EndoFM.from_preset", "preset": "tiny", "depths": 3}}
    (line,) = last_words(lambda: ConfigParser(config).get_parsed_content("network"))
    assert line.startswith("error: EndoFM.__init__() got an unexpected keyword argument 'depths'")


def test_a_fault_shows_its_own_traceback_and_then_the_cause(last_words):
    found = last_words(lambda: ConfigParser({"run": "$[].missing"}).get_parsed_content("run"))
    assert found[0] == "Traceback (most recent call last):"
    assert found[-1] == "error: AttributeError: 'list' object has no attribute 'missing'"
    assert not any("Failed to evaluate" in line for line in found)


class Items:
    """Two items, of which a transform or the dataset itself makes an error."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


LEFT_OPEN: list[Any] = []  # closed before the process ends, they wait five seconds for a worker that had an error


def first_of_a_worker(make: Callable[[int], Any]) -> Any:
    LEFT_OPEN.append(iter(DataLoader(Items(make), num_workers=1)))
    return next(LEFT_OPEN[-1])


@pytest.mark.parametrize("make", [as_class_names, Compose([as_class_names])], ids=["dataset", "transform"])
def test_an_error_in_a_worker_is_one_line(last_words, make):
    assert last_words(lambda: first_of_a_worker(lambda index: make(index + 5))) == [WRONG_NAMES]


def test_a_fault_in_a_worker_shows_its_traceback(last_words):
    found = last_words(lambda: first_of_a_worker(lambda index: [][index]))
    assert any("Original Traceback" in line for line in found)
    assert found[-1] == "error: IndexError: list index out of range"


def test_a_progress_bar_leaves_the_line_alone(last_words):
    with tqdm(total=2, desc="Epoch"):
        found = last_words(wrong_names)
    assert found[-1] == WRONG_NAMES
    assert "Epoch" in found[-2]


def test_a_script_ends_alike(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match=f"^{WRONG_NAMES}$"):
        run_from_command_line(lambda: as_class_names(5))
    with pytest.raises(SystemExit, match="^error: no/such/file: No such file or directory$"):
        run_from_command_line(lambda: Path("no/such/file").read_text())
    with pytest.raises(SystemExit, match=f"^{re.escape(WRONG_NAMES)}$"):
        run_from_command_line(wrong_names)
    with pytest.raises(AttributeError):
        run_from_command_line(lambda: [].missing)


@pytest.mark.parametrize("words", [["a.mp4", "b.mp4"], ["a.mp4", "--seeed", "3"]], ids=["word", "option"])
@pytest.mark.parametrize("by_name", [False, True])
def test_nothing_runs_where_a_word_is_too_much(capsys, words, by_name):
    ran: list[str] = []

    def look(video: str) -> None:
        ran.append(video)

    commands, name = ({"look": look}, ["look"]) if by_name else (look, [])
    with pytest.raises(SystemExit) as end:
        run_from_command_line(commands, command=[*name, *words])
    assert (end.value.code, ran) == (2, [])
    assert f"Could not consume arg: {words[1]}" in capsys.readouterr().err
    run_from_command_line(commands, command=[*name, words[0]])
    assert ran == ["a.mp4"]


@pytest.mark.parametrize(("encoding", "letter"), [("cp1252", "\\u0142"), ("utf-8", "\u0142")])
def test_a_name_that_the_terminal_cannot_show_ends_no_run(monkeypatch, encoding, letter):
    """As on Windows where the output goes to a file; and a name in bytes that are not UTF-8."""
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding))
    run_from_command_line(lambda: print("The report: \u0142/\udcfc.html"), command=[])
    sys.stdout.flush()
    assert shown.getvalue().decode(encoding) == f"The report: {letter}/\\udcfc.html\n"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([""], "an argument"),
        (["a", "--output", ""], "--output"),
        (["a", "--output="], "--output"),
        (["a", "--network_def::img_size="], "--network_def::img_size"),
    ],
)
def test_what_is_empty_is_not_the_present_folder(words, what):
    def look(*videos: str, output: str = ".") -> None:
        raise AssertionError

    with pytest.raises(SystemExit, match=f"error: {what} is empty: is a variable of the shell not set"):
        run_from_command_line(look, command=words)


def test_usage_tells_of_arguments_alone(capsys):
    def look(video: str) -> None:
        raise AssertionError

    with pytest.raises(SystemExit):
        run_from_command_line({"look": look}, command=["look"], name="endofm")
    assert "Usage: endofm look VIDEO\n" in capsys.readouterr().err


@pytest.mark.parametrize("by_name", [False, True])
def test_help_runs_nothing_whatever_options_a_function_takes(capsys, by_name):
    def look(*videos: str, **settings: int) -> None:
        """Look at videos."""
        raise AssertionError

    with pytest.raises(SystemExit) as end:
        run_from_command_line({"look": look} if by_name else look, command=["look"] * by_name + ["--help"])
    assert end.value.code == 0
    assert "Look at videos." in capsys.readouterr().err


def test_folders_that_are_called_by_numbers_are_no_numbers():
    found: list[Any] = []

    def look(*videos: str, output: str | None = None, count: int | str = 1) -> None:
        found.extend((videos, output, count))

    run_from_command_line(look, command=["2024", "a", "--output", "2024.10", "--count", "3"])
    assert found == [("2024", "a"), "2024.10", 3]


def test_tracebacks_on_request(last_words, monkeypatch):
    show_tracebacks(True)
    found = last_words(wrong_names)
    show_tracebacks(False)
    assert any("Failed to instantiate" in line for line in found)
    assert found[-1] == WRONG_NAMES
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    logging.getLogger()._cache.clear()
    assert len(last_words(wrong_names)) > 10


def test_torchrun_hears_of_it(last_words, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    last_words(wrong_names)
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert f"error: {message['message']}" == f"error: {message['extraInfo']['py_callstack']}" == WRONG_NAMES


def test_who_uses_the_package_as_a_library_is_left_alone(monkeypatch):
    before = sys.excepthook
    end_with_one_line()
    assert sys.excepthook is before
