# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from endofm_monai.networks.nets.backbone import BACKBONE_PRESETS
from endofm_monai.utils import sha256
from endofm_monai.weights import WeightsError
from endofm_monai.weights.catalogue import CATALOGUE, list_published, read_catalogue, show_published

ROOT = Path(__file__).parents[2]


def test_entries_are_whole():
    for file in read_catalogue().values():
        assert file.page.startswith(("https://", "bundle/")), file.name
        assert file.url is None or file.url.startswith("https://"), file.name
        assert file.size is None or file.size > 0, file.name
        assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16)), file.name
        assert file.alive in (True, False, None), file.name
        assert bool(file.seen_by) is (file.alive is not None), file.name
        assert file.preset is None or file.preset in BACKBONE_PRESETS, file.name
        for field in dataclasses.fields(file):  # a date or a number that YAML makes of a text
            assert field.name in ("size", "alive") or isinstance(getattr(file, field.name), (str, type(None))), (
                file.name
            )


def test_what_does_not_fit_says_why():
    for file in read_catalogue().values():
        assert file.preset or file.loads.startswith(("no: ", "no backbone: ", "its layout is not known")), file.name


def test_the_published_endo_fm():
    file = read_catalogue()["endo_fm.pth"]
    assert (file.size, file.preset, file.alive) == (2_310_444_446, "base", True)
    assert file.sha256 == "6fc7a64a044f1eff3b7f9eb233df37a3607735848d534364f12c2aebad1aea70"


@pytest.mark.parametrize("bundle", [f"endofm_polyp_{task}" for task in ("segmentation", "detection", "classification")])
def test_the_projects_own_networks_are_those_in_its_bundles(bundle):
    file = read_catalogue()[f"{bundle}.safetensors"]
    weights = ROOT / file.page
    assert (file.size, file.sha256) == (weights.stat().st_size, sha256([weights]))


def test_the_table():
    header, *lines = list_published().splitlines()[:-2]
    assert header.split() == ["name", "method", "task", "preset", "size", "link", "licence", "of", "weights"]
    assert [line.split()[0] for line in lines] == list(read_catalogue())
    link = header.index("link")
    assert lines[0][link:].split("  ")[0] == "alive 2026-08-31"
    assert "dead 2026-08-27" in next(line for line in lines if line.startswith("endofm_lv.pth "))
    assert [line.split()[0] for line in list_published("phases").splitlines()[1:-2]] == ["cholec80.pth"]
    with pytest.raises(ValueError, match="`task` must be one of backbone, .*segmentation, found 'phase'"):
        list_published("phase")


def test_all_that_is_known_of_one():
    text = show_published("endo_fm.pth")
    assert "2,310,444,446 bytes" in text
    assert "link:     alive 2026-08-31, zz0209/EndoSAE" in text
    assert "weights: no separate statement" in text
    assert "SHA-256:  not known" in show_published("endofm_lv.pth")
    with pytest.raises(WeightsError, match=r"endo\.pth: .*no such file\. Did you mean `endo_fm\.pth`"):
        show_published("endo.pth")


def test_it_is_part_of_the_package():
    name = CATALOGUE.relative_to(ROOT / "endofm_monai").as_posix()
    assert f'"{name}"' in (ROOT / "pyproject.toml").read_text()
