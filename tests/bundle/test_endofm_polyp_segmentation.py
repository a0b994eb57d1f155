# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import BundleUnderTest, failing
from monai.bundle import ConfigParser
from PIL import Image

from endofm_monai.data import ClipReadError
from endofm_monai.networks.nets import EndoFM, EndoFMSegmenter

BUNDLE = BundleUnderTest(
    "endofm_polyp_segmentation",
    network={
        "network_def::embed_dim": 16,
        "network_def::depth": 2,
        "network_def::num_heads": 2,
        "decoder": "simple",
        "frame_size": 32,
        "num_workers": 0,
    },
    training={"epochs": 2, "clips_per_video": 2, "num_frames": 3, "window": 4, "stride": 2},
)
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_segmentation.json").read_text())


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> Path:
    """Four clips of dark frames with a bright square, which is the polyp; one clip is both in training and test."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    items = []
    for number in range(4):
        item: dict[str, Any] = {"image": [], "mask": [], "label": 1}
        for frame in range(6):
            mask = np.zeros((40, 48), np.uint8)
            mask[4 + 4 * number : 20 + 4 * number, 8 + frame : 26 + frame] = 255
            pixels = random.integers(0, 90, (40, 48, 3)) + 150 * (mask[..., None] > 0)
            names = {"image": f"frames/{number}_{frame}.png", "mask": f"masks/{number}_{frame}.png"}
            for key, array in (("image", pixels.astype(np.uint8)), ("mask", mask)):
                (folder / names[key]).parent.mkdir(exist_ok=True)
                Image.fromarray(array).save(folder / names[key])
                item[key].append(names[key])
        items.append(item)
    datalist = {"training": items[:2], "validation": items[2:3], "test": items[1:2] + items[3:]}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture(scope="module")
def trained(dataset_dir, tmp_path_factory) -> Path:
    """Output folder of a short training, made once."""
    output = tmp_path_factory.mktemp("trained")
    BUNDLE.train(dataset_dir, output, epochs=12, learning_rate=0.003, layer_decay=1.0, val_interval=6)
    return output


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", ["train", "reference"]),
        ("train", ["train", "tiny"]),
        ("infer", ["inference", "reference_inference"]),
        ("infer", ["inference", "tiny_inference"]),
    ],
)
def test_overlays_have_all_properties(kind, names, dataset_dir, tmp_path):
    settings = BUNDLE.training if kind == "train" else BUNDLE.network
    folders = {"dataset_dir": dataset_dir, "ckpt_dir": tmp_path, "output_dir": tmp_path}
    assert BUNDLE.workflow(kind, *names, **folders, **settings).check_properties() == []


@pytest.mark.parametrize("case", ["a", "b", "empty_target"])
def test_loss_is_the_published_one(case, arr):
    parser = ConfigParser()
    parser.read_config(BUNDLE.config("train")[0])
    loss_function = parser.get_parsed_content("loss_function")
    expected = GOLDEN["loss"][case]
    logits, target = (
        arr(name, [int(size) for size in shape.split(",")], float(std or 1))
        for name, shape, std in (
            re.match(r'arr\(prefix\+"(.*)", \(([\d, ]+)\)(?:, std=([\d.]+))?\)', expected[key]).groups()
            for key in ("logits", "target")
        )
    )
    target = target > float(expected["target"].rsplit(" ", 1)[1])
    assert int(target.sum()) == expected["foreground"]
    clip = logits.transpose(0, 1)[None].requires_grad_()  # frames were the published batch
    loss = loss_function(clip, target[None, None].float())
    loss.backward()
    assert loss.item() == pytest.approx(expected["total"], rel=1e-5)
    assert float(clip.grad.norm()) == pytest.approx(expected["grad_of_total_wrt_logits"]["l2"], rel=1e-4)


def test_training_writes_the_best_model_a_checkpoint_and_pictures(trained):
    state = torch.load(trained / "models" / "checkpoint.pt", weights_only=True)
    assert state["best"]["metric"] > 0.5
    network = EndoFMSegmenter(EndoFM(embed_dim=16, depth=2, num_heads=2), decoder="simple")
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    assert len(list((trained / "eval" / "masks").glob("*.png"))) == 2
    assert any((trained / "eval" / "validation").glob("events*"))


def test_a_list_of_the_test_alone_is_evaluated(trained, dataset_dir, tmp_path):
    test = json.loads((dataset_dir / "datalist.json").read_text())["test"]
    test = [{**item, "group": 10**20} for item in test]  # of one patient, whose number is larger than a tensor holds
    (tmp_path / "test.json").write_text(json.dumps({"training": [], "test": test}))
    BUNDLE.evaluate(dataset_dir, trained / "models" / "model.pt", tmp_path, datalist=tmp_path / "test.json")
    clean = json.loads((tmp_path / "segmentation.json").read_text())["clean"]
    assert (clean["frames"], clean["groups"]) == (12, 1)
    with (tmp_path / "segmentation_frames.csv").open() as file:
        assert {row["group"] for row in csv.DictReader(file)} == {str(10**20)}


def test_evaluation_reports_both_protocols_and_flags_the_shared_clip(trained, dataset_dir, tmp_path):
    listed = json.loads((dataset_dir / "datalist.json").read_text())
    for item in listed["training"]:
        del item["mask"]  # what was trained on is only named, and need not be there to be trained on again
    (tmp_path / "list.json").write_text(json.dumps(listed))
    settings = {"datalist": tmp_path / "list.json", "post_processing": True}
    BUNDLE.evaluate(dataset_dir, trained / "models" / "model.pt", tmp_path, **settings)
    report = json.loads((tmp_path / "segmentation.json").read_text())
    assert report["published"]["clips_in_training"] == ["frames/1_0-1_5"]
    assert (report["clean"]["frames"], report["clean"]["sequences"]) == (6, 1)
    assert report["clean"]["per_frame"]["dice"]["value"] > 0.5
    assert report["post_processed"]["per_frame"]["dice"]["value"] > 0.5


def test_inference_writes_masks_of_the_frames_size(trained, dataset_dir, tmp_path):
    BUNDLE.infer(dataset_dir / "frames", trained / "models" / "model.pt", tmp_path)
    (folder,) = (path.parent for path in tmp_path.rglob("masks.json"))
    masks = sorted((folder / "masks").iterdir())
    assert len(masks) == 24
    assert np.asarray(Image.open(masks[0])).shape == (40, 48)


def test_reference_protocol_trains_on_whole_clips_without_clipping(dataset_dir, tmp_path):
    settings = {key: BUNDLE.training[key] for key in BUNDLE.training.keys() - BUNDLE.network.keys()}
    unchanged = {key: json.loads(Path(BUNDLE.config("reference")[0]).read_text()).get(key, 8) for key in settings}
    made = BUNDLE.train(dataset_dir, tmp_path, "reference", **{**unchanged, "epochs": 1})
    output = made.parser.get_parsed_content("train::trainer").state.output
    assert output["image"].shape == (1, 3, 6, 32, 32)
    assert output["image"].amin() == pytest.approx(-1, abs=1e-5)
    assert math.isfinite(float(output["loss"]))


@pytest.mark.parametrize("overlays", [[], ["reference"]])
def test_constant_frames_without_a_polyp_keep_all_numbers_finite(overlays, tmp_path):
    item: dict[str, list[str]] = {"image": [], "mask": []}
    for frame in range(6):
        for key, value in (("image", np.full((40, 48, 3), 128)), ("mask", np.zeros((40, 48)))):
            item[key].append(f"{key}_{frame}.png")
            Image.fromarray(value.astype(np.uint8)).save(tmp_path / item[key][-1])
    Image.new("L", (48, 40), 255).save(tmp_path / "mask.png")
    shown = {"image": ["image_0.png"], "mask": ["mask.png"]}
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [item, shown], "validation": [item]}))
    made = BUNDLE.train(tmp_path, tmp_path, *overlays, epochs=1)
    assert math.isfinite(float(made.parser.get_parsed_content("train::trainer").state.output["loss"]))
    assert all(value.isfinite().all() for value in made.parser.get_parsed_content("network").state_dict().values())
    assert all(map(math.isfinite, made.parser.get_parsed_content("validate::evaluator").state.metrics.values()))


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda items: items[0]["mask"].pop(), ValueError, "training[0] (frames/0_0-0_5): has 6 frames, but 5 masks"),
        (lambda items: items[0].update(mask=5), ValueError, "or their folder, found 5"),
        (lambda items: items[0].pop("mask"), ValueError, "training[0] has no mask"),
        (lambda items: items[0]["mask"].__setitem__(0, "frames/0_0.png"), ClipReadError, "frames/0_0.png: a mask must"),
    ],
)
def test_bad_masks_are_named(dataset_dir, tmp_path, spoil, kind, message):
    datalist = json.loads((dataset_dir / "datalist.json").read_text())
    spoil(datalist["training"])
    (tmp_path / "datalist.json").write_text(json.dumps(datalist))
    with failing(message, kind=kind):
        BUNDLE.train(dataset_dir, tmp_path, datalist=tmp_path / "datalist.json", on_error="raise")
