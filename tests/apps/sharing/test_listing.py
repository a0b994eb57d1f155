# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

from monai.bundle import get_bundle_versions, scripts

from endofm_monai.apps.sharing.listing import add_to_listing, bundle_versions


def test_versions_are_those_that_monai_reads_from_the_same_listing(tmp_path, monkeypatch):
    archive = tmp_path / "endofm_pretraining.zip"
    for version in ("0.2.0", "0.1.0", "0.2.0"):
        archive.write_text(version)
        listing = add_to_listing(archive, version)
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
