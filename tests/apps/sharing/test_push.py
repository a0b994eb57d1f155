# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from endofm_monai.apps.sharing import push
from endofm_monai.apps.sharing.push import push_bundle


def test_dry_run_tells_what_would_go_and_sends_nothing(shared, capsys, monkeypatch):
    monkeypatch.setattr(push, "push_to_hf_hub", lambda **_: pytest.fail("something was sent"))
    folder = shared / "out" / "endofm_pretraining"
    files = push_bundle(folder, "someone/endofm_pretraining", dry_run=True)
    assert files == {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    shown = capsys.readouterr().out
    assert shown.startswith("Would push version 0.1.0 to someone/endofm_pretraining (private):")
    assert f"{files['models/model.pt']:,d}  models/model.pt" in shown
    assert not (folder / "README.md").exists()


def test_push_is_monais(shared, monkeypatch):
    sent = {}
    monkeypatch.setattr(push, "push_to_hf_hub", lambda **arguments: sent.update(arguments))
    monkeypatch.setattr(push, "has_hub", True)
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
    monkeypatch.setattr(push, "has_hub", False)
    with pytest.raises(RuntimeError, match="huggingface_hub: install it"):
        push_bundle(shared / "out" / "endofm_pretraining", "someone/name")
