# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The last line that the user of a command sees is the cause; memory errors name what was being done."""

import functools
import inspect
import io
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import fire
import monai
import torch
from fire import decorators
from fire.parser import DefaultParseValue
from tqdm import tqdm

__all__ = ["INTERRUPTED", "cause_of", "name_memory_errors", "run_from_command_line"]

logger = logging.getLogger(__name__)

WRAPPERS = ("Failed to evaluate ", "Failed to instantiate component ", "applying transform ")  # MONAI's
SPEAKING = tuple(os.path.join(os.path.dirname(path), "") for path in (monai.__file__, str(Path(__file__).parent)))
_SIGNS = ("allocate memory", "out of memory", "ALLOC_FAILED")  # torch has no class of its own for the CPU and cuBLAS
INTERRUPTED = 130  # what shells give for a process that Ctrl+C ended


def end_with_one_line() -> None:
    """Let an error end this process with one line, if it is a run of ``python -m monai.bundle``.

    Errors of this package, of MONAI and of the file system say all in that line; others show their traceback before.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == "monai.bundle.__main__":
        sys.excepthook = _end
        hush_engines()


def hush_engines() -> None:
    """Leave out of the log what engines say of an error that ends the run: its line is to come."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_news)


@dataclass
class _Call:
    """A call that waits until the whole command line is understood."""

    _function: Callable[[], Any]


def _postponed(commands: Any) -> Any:
    """Functions that give a call to make: fire would run them, and then say of further words that they are too many."""
    if isinstance(commands, dict):
        return {name: _postponed(command) for name, command in commands.items()}
    call = functools.wraps(commands)(lambda *args, **options: _Call(lambda: commands(*args, **options)))
    texts: list[str | None] = []
    for name, found in inspect.signature(commands, eval_str=True).parameters.items():
        kinds = {*get_args(found.annotation), found.annotation}
        if str in kinds and not kinds & {int, float}:
            texts.append(None if found.kind is found.VAR_POSITIONAL else name)  # None: words of `*args`
    return decorators.SetParseFn(_as_text, *texts)(call) if texts else call


def _as_text(word: str) -> Any:
    """What a word means where text is wanted: folders may be called ``2024.10``, of which fire makes a number."""
    value = DefaultParseValue(word)
    if isinstance(value, tuple):
        return tuple(str(each) if type(each) in (int, float) else each for each in value)
    return word if type(value) in (int, float) else value


def run_from_command_line(
    commands: Any, *, serialize: Callable[[Any], Any] = lambda result: result, **options: Any
) -> None:
    """Make a function, or several by name, what a script does, as ``fire.Fire``; an error ends it with one line."""

    def run(result: Any) -> Any:
        return serialize(result._function()) if isinstance(result, _Call) else result

    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that it cannot show, as of Windows, ends no run
        sys.stdout.reconfigure(errors="backslashreplace")
    decorators.FIRE_METADATA = "__fire__"  # its own name for what `SetParseFn` notes is shown as if it were a command
    words = options.setdefault("command", sys.argv[1:])
    for before, word in zip(["", *words], words, strict=False):
        if not word or re.fullmatch("-[^=]+=", word):  # which would be the present folder, or the default
            what = word.rstrip("=") or (before if before.startswith("-") else "an argument")
            sys.exit(f"error: {what} is empty: is a variable of the shell not set?")
    if "--help" in words:  # which fire would hand to a function that takes any option
        named = [word for word in words[:1] if isinstance(commands, dict) and word in commands]
        options["command"] = [*named, "--", "--help"]
    try:
        fire.Fire(_postponed(commands), serialize=run, **options)
    except KeyboardInterrupt:
        close_bars()
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        cause = cause_of(error)
        line, is_all = _describe(cause)
        if not is_all and not isinstance(cause, ValueError):
            raise
        close_bars()
        sys.exit(f"error: {line if is_all else cause}")


def cause_of(error: BaseException) -> BaseException:
    """What an error comes from that MONAI wrapped once for each level of a configuration."""
    while str(error).startswith(WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error


def close_bars() -> None:
    """Close the progress bars of a run that ends before its time, which leave their line unended."""
    for bar in [*getattr(tqdm, "_instances", ())]:
        bar.close()


def show_tracebacks(always: bool) -> None:
    """Show tracebacks before every line, as they are at debug level anyway."""
    logger.setLevel(logging.DEBUG if always else logging.NOTSET)


def _is_news(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    of_engine = "is terminating due to exception" in text or (record.exc_info and text.startswith("Exception: "))
    return logger.isEnabledFor(logging.DEBUG) or not of_engine


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say what ended the run, also to ``torchrun``, which shows it in its summary."""
    if isinstance(error, KeyboardInterrupt) and not logger.isEnabledFor(logging.DEBUG):
        close_bars()
        print("interrupted", file=sys.stderr)
        return
    if not isinstance(error, Exception):
        sys.__excepthook__(kind, error, trace)
        return
    cause = cause_of(error)
    line, is_all = _describe(cause)
    if logger.isEnabledFor(logging.DEBUG):
        sys.__excepthook__(kind, error, trace)
    elif not is_all:
        traceback.print_exception(cause, chain=False)
    close_bars()
    print(f"error: {line}", file=sys.stderr, flush=True)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        more = {"py_callstack": line, "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": line, "extraInfo": more}}), encoding="utf-8")


def _describe(error: BaseException) -> tuple[str, bool]:
    """An error in one line, and whether it says all that its user needs."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", True
    frames = traceback.extract_tb(error.__traceback__)
    name, text, file = type(error).__name__, str(error), frames[-1].filename if frames else ""
    if " in DataLoader worker process " in text:  # which sends its traceback as text
        parts = re.split(r"\n\n(?:The above exception was|During handling of) .*\n\n", text.rstrip())
        said = [part.rpartition("\n")[2].partition(": ") for part in parts]
        index = next((i for i in reversed(range(len(said))) if not said[i][2].startswith(WRAPPERS)), 0)
        name, _, text = said[index]
        file = re.findall(r'^  File "(.+?)", line', parts[index], re.MULTILINE)[-1]
    is_fault = isinstance(error, (AssertionError, AttributeError, LookupError, NameError, TypeError))
    is_all = isinstance(error, OSError) or (file.startswith(SPEAKING) and not is_fault)
    is_all |= "got an unexpected keyword argument" in text
    line = " ".join(text.split())
    return (line if is_all else f"{name}: {line}"), is_all


@contextmanager
def name_memory_errors(what: Callable[[], str], advice: str) -> Iterator[None]:
    """Turn every way of having too little memory into a ``MemoryError`` that says ``what`` was done, with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and not any(sign in str(error) for sign in _SIGNS):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MemoryError(f"{what()}: there is not enough memory; {advice} ({reason}).") from error
