# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib

import pytest

from endofm_monai.utils import sha256


def test_files_are_hashed_one_after_another(tmp_path):
    parts = [b"a" * (1 << 20), b"b" * 3, b""]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(part)
    assert sha256([tmp_path / "0", tmp_path / "1", tmp_path / "2"]) == hashlib.sha256(b"".join(parts)).hexdigest()
    assert sha256([]) == hashlib.sha256().hexdigest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        sha256([tmp_path / "absent"])
