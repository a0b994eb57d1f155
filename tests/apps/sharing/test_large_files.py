# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from monai.bundle import download_large_files

from endofm_monai.apps.sharing.listing import check_large_files, write_large_files


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "bundle" / "models").mkdir(parents=True)
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"weights")
    return tmp_path / "bundle"


def test_hash_is_listed_and_monai_finds_nothing_to_download(folder):
    write_large_files(folder)
    (entry,) = json.loads((folder / "large_files.yml").read_text())["large_files"]
    assert entry["path"] == "models/model.pt"
    assert entry["hash_val"] == hashlib.sha256(b"weights").hexdigest()
    assert check_large_files(folder) == [folder / "models" / "model.pt"]
    download_large_files(str(folder))


def test_other_weights_are_refused(folder):
    write_large_files(folder)
    (folder / "models" / "model.pt").write_bytes(b"Weights")
    with pytest.raises(ValueError, match=r"model.pt: is not the listed file: expected SHA-256 \w{64}, found \w{64}"):
        check_large_files(folder)
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.pt: is missing"):
        check_large_files(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"path": "../secret"}, "leads out of the bundle"), ({"hash_type": "md5"}, "has no hash of the type sha256")],
)
def test_strange_list_is_refused(folder, change, message):
    (folder.parent / "secret").write_text("secret")
    listed = write_large_files(folder)
    (entry,) = json.loads(listed.read_text())["large_files"]
    listed.write_text(json.dumps({"large_files": [{**entry, **change}]}))
    with pytest.raises(ValueError, match=message):
        check_large_files(folder)


def test_bundle_without_a_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"large_files.yml: is missing"):
        check_large_files(tmp_path)
