# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import zipfile

import pytest

from endofm_monai.utils import (
    TEMPORARY_PREFIX,
    atomic_path,
    check_writable,
    open_zip,
    printable,
    read_csv,
    read_json,
    read_text,
    remove_leftovers,
    sha256,
    temporary_prefix,
    write_csv,
    write_json,
)

LATIN_1 = os.fsdecode(b"K\xf6ln")


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_names_that_are_not_utf_8_in_tables_and_json(tmp_path):
    write_csv(tmp_path / f"{LATIN_1}.csv", ["name"], [[LATIN_1], ["Köln"]])
    with open(tmp_path / f"{LATIN_1}.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name"], [r"K\udcf6ln"], ["Köln"]]
    assert printable(LATIN_1) == r"K\udcf6ln"
    write_json(tmp_path / "a.json", {"name": LATIN_1})
    assert (tmp_path / "a.json").read_bytes().isascii()
    assert read_json(tmp_path / "a.json", dict) == {"name": LATIN_1}


def test_a_name_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    write_json(path, [1])
    assert json.loads(path.read_text()) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff", "must be text in UTF-8, but byte 0 is 0xff"),
        (b"[" * 200_000, "is not valid JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON"),
        (b"[]", "must hold a dict, but holds a list"),
    ],
    ids=["empty", "no UTF-8", "deep", "digits", "type"],
)
def test_bad_json_is_one_line_with_the_file(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^[^\n]*a\.json: {message}[^\n]*$"):
        read_json(tmp_path / "a.json", dict)


def test_a_mark_of_windows_at_the_beginning_is_no_text(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "Köln"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", dict) == {"name": "Köln"}
    for text in ("name;section\r\nKöln;training\r\n", "name;section\rKöln;training"):
        (tmp_path / "a.csv").write_bytes(text.encode("utf-8-sig"))
        assert read_text(tmp_path / "a.csv") == text
        assert read_csv(tmp_path / "a.csv", delimiter=";") == [{"name": "Köln", "section": "training"}]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_text_of_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "a.csv").write_text("name\nKöln\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"^[^\n]*a\.csv: must be text in UTF-8, but byte \d is 0x(f6|ff); save it as"):
        read_csv(tmp_path / "a.csv")


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.csv").write_text(f"name\n{'a' * 200_000}\n")
    with pytest.raises(ValueError, match=r"a\.csv: is no readable table \(field larger than field limit"):
        read_csv(tmp_path / "a.csv")


def test_a_row_has_the_cells_that_the_first_line_names(tmp_path):
    (tmp_path / "a.csv").write_text("name,section\na,test,\n\nb,training\n")  # Excel ends lines with empty ones
    assert read_csv(tmp_path / "a.csv") == [
        {"name": "a", "section": "test"},
        {"name": "b", "section": "training"},
    ]
    for row in ("b, c,training", "b"):
        (tmp_path / "a.csv").write_text(f"name,section\na,test\n{row}\n")
        with pytest.raises(ValueError, match=r"a\.csv: line 3: has other cells than the first line names"):
            read_csv(tmp_path / "a.csv")


def test_an_archive_is_weighed_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1 << 22))
    with pytest.raises(ValueError, match=r"a\.zip: \d+ bytes would unpack to 4194304, more than 100 times"):
        open_zip(tmp_path / "a.zip", 100).__enter__()
    (tmp_path / "b.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"b\.zip: is a damaged archive"):
        open_zip(tmp_path / "b.zip", 100).__enter__()


def test_what_a_killed_process_left_goes_and_all_else_stays(tmp_path, dead):
    kept = [f"{TEMPORARY_PREFIX}{os.getppid()}-a.pt", ".endofm-00000000-1-a.pt", "checkpoint.pt", ".hidden"]
    kept += [f"{TEMPORARY_PREFIX}mine.txt", f"{temporary_prefix()}a.pt"]
    for name in (*kept, f"{TEMPORARY_PREFIX}{dead}-a.pt"):
        (tmp_path / name).touch()
    (tmp_path / f"{TEMPORARY_PREFIX}{dead}-b" / "masks").mkdir(parents=True)
    with atomic_path(tmp_path / "new.pt"):  # whatever is written next
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "new.pt"}
    below = tmp_path / "a" / "b" / f"{TEMPORARY_PREFIX}{dead}-c"
    below.mkdir(parents=True)
    remove_leftovers(tmp_path, "**/")
    assert not below.exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "models", "/proc/models"):
        with pytest.raises(OSError, match="cannot be written to") as caught:
            check_writable(folder)
        assert caught.value.filename == str(folder)
    check_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def test_a_written_file_may_be_read_by_whom_other_files_may_be_read_by(tmp_path):
    (tmp_path / "plain").touch()
    write_json(tmp_path / "a.json", [1])
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_path_where_no_file_can_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="could not write: ") as caught:
        write_json(tmp_path / "file" / "a.json", [1])
    assert caught.value.filename == str(tmp_path / "file" / "a.json")


def test_files_are_hashed_one_after_another(tmp_path):
    parts = [b"a" * (1 << 20), b"b" * 3, b""]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(part)
    assert sha256([tmp_path / "0", tmp_path / "1", tmp_path / "2"]) == hashlib.sha256(b"".join(parts)).hexdigest()
    assert sha256([]) == hashlib.sha256().hexdigest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        sha256([tmp_path / "absent"])
