# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from bundles import BundleUnderTest
from monai.bundle import ConfigParser, ckpt_export, create_workflow, load, verify_metadata, verify_net_in_out
from trial import TINY, TRIAL_INFERENCE, TRIAL_TRAINING

from endofm_monai.networks.nets import EndoFM
from endofm_monai.utils import cause_of

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "endofm_monai" / "apps" / "sharing" / "metadata_schema.json"
NAMES = sorted(path.parents[1].name for path in ROOT.glob("bundle/*/configs/metadata.json"))
ONLY_IN_TRAINING = {"activation_checkpointing", "frames", "last_blocks", "mode", "token_drop"}
NOT_OF_THE_CLIP = {"LoadMasksd", "CopyItemsd", "SelectItemsd"}


@pytest.fixture(params=NAMES)
def bundle(request) -> BundleUnderTest:
    return BundleUnderTest(request.param)


def read(bundle: BundleUnderTest, name: str) -> dict[str, Any]:
    return json.loads(Path(bundle.config(name)[0]).read_text())


def test_there_are_four() -> None:
    tasks = ["endofm_polyp_classification", "endofm_polyp_detection", "endofm_polyp_segmentation", "endofm_pretraining"]
    assert tasks == NAMES


def test_is_complete(bundle) -> None:
    configs = ("metadata", "train", "multi_gpu_train", "evaluate", "inference")
    documents = ("docs/README.md", "docs/model_card.md", "docs/data_license.txt")
    for name in (*(f"configs/{config}.json" for config in configs), "configs/logging.conf", *documents):
        assert (bundle.folder / name).is_file()
    for config in ("train", "inference"):  # by which alone a new process knows the short names
        assert "$import endofm_monai" in read(bundle, config)["imports"]
    assert (bundle.folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert max(path.stat().st_size for path in (bundle.folder / "configs").iterdir()) < 25_000_000


def test_metadata_follows_the_schema(bundle) -> None:
    metadata = read(bundle, "metadata")
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]
    verify_metadata(meta_file=bundle.config("metadata")[0], filepath=str(SCHEMA))


@pytest.mark.parametrize("names", [["train"], ["train", "evaluate"], ["inference"]], ids="+".join)
def test_has_all_properties_without_weights(bundle, trial_datalist, names, tmp_path) -> None:
    kind, settings = ("infer", TRIAL_INFERENCE) if names == ["inference"] else ("train", TRIAL_TRAINING)
    made = create_workflow(
        config_file=bundle.config(*names),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(trial_datalist.parent),
        datalist=str(trial_datalist),
        ckpt_dir=str(tmp_path),
        output_dir=str(tmp_path),
        **settings[bundle.folder.name],
    )
    assert made.check_properties() == []
    assert made.version == read(bundle, "metadata")["version"]


def test_starts_from_a_backbone_of_long_videos_on_request(bundle, tmp_path) -> None:
    sizes = {key.partition("::")[2]: value for key, value in TINY.items() if key.startswith("network_def::")}
    backbone = EndoFM(num_frames=32, **sizes)
    backbone.time_embed.data.copy_(torch.arange(32.0).reshape(1, 32, 1))
    torch.save(backbone.state_dict(), tmp_path / "long.pth")
    parser = ConfigParser(ConfigParser.load_config_file(bundle.config("train")[0]))
    parser.parse(reset=True)
    parser.update({**TRIAL_TRAINING[bundle.folder.name], "backbone_weights": str(tmp_path / "long.pth")})
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("model")
    assert "`--resample_time True`" in str(cause_of(caught.value))
    parser.update({"resample_time": True})
    state = parser.get_parsed_content("model").state_dict()
    tables = [table[0, :, 0].tolist() for name, table in state.items() if name.endswith("time_embed")]
    assert tables
    assert all(table == [0, 4, 8, 12, 16, 20, 24, 28] for table in tables)


def test_network_takes_and_gives_what_the_metadata_say(bundle) -> None:
    with torch.device("meta"):  # MONAI compares shape and dtype alone, which need no arithmetic
        verify_net_in_out(
            net_id="network_def",
            meta_file=bundle.config("metadata")[0],
            config_file=bundle.config("inference")[0],
            device="meta",
        )


def test_torchscript_file_gives_the_same_at_any_shape(bundle, with_model, trial_network) -> None:
    ckpt_export(
        config_file=str(with_model / "configs" / "inference.json"),
        bundle_root=str(with_model),
        **TRIAL_INFERENCE[bundle.folder.name],
    )
    network = trial_network(bundle, "inference", TRIAL_INFERENCE[bundle.folder.name]).eval()
    network.load_state_dict(torch.load(with_model / "models" / "model.pt", weights_only=True))
    exported, metadata, _ = load(
        bundle.folder.name, bundle_dir=str(with_model.parent), load_ts_module=True, device="cpu"
    )
    assert metadata["version"] == read(bundle, "metadata")["version"]
    with torch.no_grad():
        for shape in ((1, 3, 2, 64, 96), (2, 3, 3, 96, 64)):
            clip = torch.randn(shape)
            torch.testing.assert_close(exported.eval()(clip), network(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_loads_by_monai(bundle, with_model, kind) -> None:
    settings = TRIAL_INFERENCE[bundle.folder.name]
    override = {key.removeprefix("network_def::"): value for key, value in settings.items() if "network_def" in key}
    override |= {key: settings[key] for key in ("preset", "decoder") if key in settings}
    override |= {"num_classes": len(settings["class_names"])} if "class_names" in settings else {}
    saved = torch.load(with_model / "models" / "model.pt", weights_only=True)
    network = load(
        bundle.folder.name,
        bundle_dir=str(with_model.parent),
        workflow_type=kind,
        device="cpu",
        net_override=override,
    )
    state = network.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in state.items())


def test_training_and_inference_have_the_same_network(bundle, trial_network) -> None:
    train, inference = read(bundle, "train"), read(bundle, "inference")
    in_training = {key: value for key, value in train["network_def"].items() if key not in ONLY_IN_TRAINING}
    assert in_training == inference["network_def"]
    referenced = {value[1:] for value in inference["network_def"].values() if str(value).startswith("@")}
    assert all(train[key] == inference[key] for key in referenced)
    states = [
        trial_network(bundle, config, settings[bundle.folder.name]).state_dict()
        for config, settings in (("train", TRIAL_TRAINING), ("inference", TRIAL_INFERENCE))
    ]
    assert len({tuple((name, value.shape) for name, value in state.items()) for state in states}) == 1


def test_training_and_inference_prepare_clips_alike(bundle) -> None:
    """The validation of the training is the inference, save for what belongs to labels and results."""
    train, inference = read(bundle, "train"), read(bundle, "inference")
    if "preprocessing" in inference:
        steps = clip_steps(train, train["validate"]["preprocessing"])
        assert steps == clip_steps(inference, inference["preprocessing"])
    validating, predicting = train["validate"].get("predictor", {}), inference.get("predictor", {})
    for key in ("_target_", "fit", "normalize", "preprocess"):
        if key in validating:
            assert validating[key] == predicting[key], key
    shared = {"class_names", "frame_size", "num_frames", "sampling_rate", "window", "stride", "mode", "mean", "std"}
    shared -= {"mode"} if "num_frames" in inference else set()  # which part of a classifier is trained
    for key in shared & train.keys() & inference.keys():
        assert train[key] == inference[key], key


def clip_steps(config: dict[str, Any], step: Any) -> list[dict[str, Any]]:
    """What a transform of a config does to the clip, one by one, with references followed."""
    if isinstance(step, str):
        return clip_steps(config, config[step.removeprefix("@")])
    if isinstance(step, list):
        return [found for part in step for found in clip_steps(config, part)]
    if step["_target_"] == "Compose":
        return clip_steps(config, step["transforms"])
    return [] if step["_target_"] in NOT_OF_THE_CLIP else [step]


@pytest.mark.skipif("MODEL_ZOO_ROOT" not in os.environ, reason="needs a checkout of the Model Zoo at MODEL_ZOO_ROOT")
@pytest.mark.full_size
def test_passes_the_checks_of_the_model_zoo(bundle, tmp_path) -> None:
    copy = tmp_path / bundle.folder.name
    shutil.copytree(bundle.folder, copy, ignore=shutil.ignore_patterns("eval", "models"))
    (copy / "models").mkdir()
    (copy / "eval").mkdir()
    parser = ConfigParser()
    parser.read_config(bundle.config("inference")[0])
    torch.save(parser.get_parsed_content("network_def").state_dict(), copy / "models" / "model.pt")
    shutil.copy(SCHEMA, copy / "eval" / "schema.json")
    (tmp_path / "model_info.json").write_text("{}")
    zoo = Path(os.environ["MODEL_ZOO_ROOT"])
    command = [sys.executable, str(zoo / "ci" / "verify_bundle.py"), "-b", copy.name, "-p", str(tmp_path), "-m", "full"]
    done = subprocess.run(command, cwd=zoo, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def needed() -> list[set[str]]:
    """Distributions of the packages that the project imports, beside those of apps that a bundle does without."""
    without = ("apps/monai_label", "apps/cvat", "apps/active_learning", "preparation")
    imported = set()
    for path in (ROOT / "endofm_monai").rglob("*.py"):
        if not path.relative_to(ROOT / "endofm_monai").as_posix().startswith(without):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(str(node.module).partition(".")[0])
    distributions = packages_distributions()
    return [
        {found.lower() for found in distributions[n]} for n in imported - {*sys.stdlib_module_names, "endofm_monai"}
    ]


def test_metadata_name_every_package_that_the_project_imports(bundle, needed) -> None:
    named = {"monai", "torch", "numpy", *read(bundle, "metadata")["required_packages_version"]}
    assert [found for found in needed if not found & named] == []
    assert "fire" in named  # which the commands of monai.bundle need
