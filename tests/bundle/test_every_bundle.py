# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from monai.bundle import verify_net_in_out

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundle/*/configs/metadata.json"))
in_every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=[bundle.name for bundle in BUNDLES])


def test_there_are_four() -> None:
    tasks = ["endofm_polyp_classification", "endofm_polyp_detection", "endofm_polyp_segmentation", "endofm_pretraining"]
    assert [bundle.name for bundle in BUNDLES] == tasks


@in_every_bundle
def test_is_complete(bundle: Path) -> None:
    configs = ("metadata", "train", "multi_gpu_train", "evaluate", "inference")
    for name in (*(f"configs/{config}.json" for config in configs), "configs/logging.conf", "docs/README.md"):
        assert (bundle / name).is_file()
    assert (bundle / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@in_every_bundle
def test_metadata_follows_the_schema(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    schema = json.loads((ROOT / "tests" / "data" / "meta_schema_20240725_equivalent.json").read_text())
    jsonschema.validate(metadata, schema)
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.full_size
@in_every_bundle
def test_network_takes_and_gives_what_the_metadata_say(bundle: Path) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        device="cpu",
    )
