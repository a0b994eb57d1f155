# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import download_large_files, get_bundle_versions, scripts

from endofm_monai.apps.sharing import publish
from endofm_monai.apps.sharing.publish import (
    add_to_listing,
    bundle_versions,
    check_large_files,
    push_bundle,
    write_large_files,
)


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
    stored = (folder / "models" / "model.pt").rename(folder.parent / "blob")  # as Hugging Face downloads it
    (folder / "models" / "model.pt").symlink_to(stored)
    assert check_large_files(folder) == [folder / "models" / "model.pt"]


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
    listed = folder / "large_files.yml"
    write_large_files(folder)
    (entry,) = json.loads(listed.read_text())["large_files"]
    listed.write_text(json.dumps({"large_files": [{**entry, **change}]}))
    with pytest.raises(ValueError, match=message):
        check_large_files(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "{{", '{"large_files": null}', '{"large_files": [{"hash_val": "0"}]}'])
def test_what_is_no_list_is_named(folder, content):
    (folder / "large_files.yml").write_text(content)
    with pytest.raises(ValueError, match=r"large_files.yml: must be a list `large_files` of files"):
        check_large_files(folder)


def test_bundle_without_a_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"large_files.yml: is missing"):
        check_large_files(tmp_path)
    with pytest.raises(FileNotFoundError, match="models"):
        write_large_files(tmp_path)


def test_versions_are_those_that_monai_reads_from_the_same_listing(tmp_path, monkeypatch):
    archive, listing = tmp_path / "endofm_pretraining.zip", tmp_path / "model_info.json"
    kept = {"endofm_pretraining_v0.1.0": {"checksum": "0", "source": "endofm_pretraining_v0.1.0.zip"}}
    listing.write_text(json.dumps(kept))
    for version in ("0.3.0", "0.2.0"):  # of which the latter takes the place of the former
        archive.write_text(version)
        add_to_listing(archive, version)
    entries = json.loads(listing.read_text())
    assert list(entries) == ["endofm_pretraining_v0.1.0", "endofm_pretraining_v0.2.0"]
    assert entries["endofm_pretraining_v0.2.0"]["checksum"] == hashlib.sha1(b"0.2.0").hexdigest()

    answer = SimpleNamespace(text=listing.read_text(), raise_for_status=lambda: None)
    monkeypatch.setattr(scripts, "requests", SimpleNamespace(get=lambda url: answer))
    monkeypatch.setattr(scripts, "has_requests", True)
    assert bundle_versions(tmp_path)["endofm_pretraining"] == get_bundle_versions("endofm_pretraining")


def test_versions_are_compared_as_numbers(tmp_path):
    (tmp_path / "model_info.json").write_text(json.dumps({"a_v0.10.0": {}, "a_v0.9.0": {}, "b_valve_v1.0.0": {}}))
    versions = bundle_versions(tmp_path)
    assert versions["a"] == {"latest_version": "0.10.0", "all_versions": ["0.9.0", "0.10.0"]}
    assert versions["b_valve"]["latest_version"] == "1.0.0"


def test_dry_run_tells_what_would_go_and_sends_nothing(shared, capsys, monkeypatch):
    monkeypatch.setattr(publish, "push_to_hf_hub", lambda **_: pytest.fail("something was sent"))
    folder = shared / "out" / "endofm_pretraining"
    files = push_bundle(folder, "someone/endofm_pretraining", dry_run=True)
    assert files == {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    shown = capsys.readouterr().out
    assert shown.startswith("Would push version 0.1.0 to someone/endofm_pretraining (private):")
    assert f"{files['models/model.pt']:,d}  models/model.pt" in shown
    assert not (folder / "README.md").exists()


def test_push_is_monais(shared, monkeypatch):
    sent = {}
    monkeypatch.setattr(publish, "push_to_hf_hub", lambda **arguments: sent.update(arguments))
    monkeypatch.setattr(publish, "has_hub", True)
    push_bundle(shared / "out" / "endofm_pretraining", "someone/name", private=False, token="secret")
    assert sent == {
        "repo": "someone/name",
        "name": "endofm_pretraining",
        "bundle_dir": str(shared / "out"),
        "private": False,
        "version": "0.1.0",
        "token": "secret",
    }


def test_wrong_arguments_are_named_before_anything_is_sent(shared, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`repo` must be 'owner/name', but got 'name'"):
        push_bundle(shared / "out" / "endofm_pretraining", "name")
    with pytest.raises(FileNotFoundError, match=r"large_files.yml: is missing"):
        push_bundle(tmp_path, "someone/name")
    monkeypatch.setattr(publish, "push_to_hf_hub", lambda **_: pytest.fail("something was sent"))
    with pytest.raises(
        ValueError, match="`dry_runn`: a push has no such argument, only .*dry_run, .*; nothing was sent"
    ):
        push_bundle(shared / "out" / "endofm_pretraining", "someone/name", dry_runn=True)
    monkeypatch.setattr(publish, "has_hub", False)
    with pytest.raises(RuntimeError, match="huggingface_hub: install it"):
        push_bundle(shared / "out" / "endofm_pretraining", "someone/name")
