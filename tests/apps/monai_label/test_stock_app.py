# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from blob_bundles import draw, make_bundle, truth
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from PIL import Image

from endofm_monai.inferers import load_predictor


def test_the_stock_app_segments_an_image_as_the_predictor_does(tmp_path):
    bundle = make_bundle(tmp_path, "segmentation")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    pixels[10:20, 20:50] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    task = BundleInferTask(str(bundle), {})
    assert task.is_valid()
    file, _ = task({"image": str(tmp_path / "image.png"), "device": "cpu", **task.displayable_configs})
    ((_, answer),) = load_predictor(bundle)(tmp_path / "image.png")
    assert answer["mask"].any()
    np.testing.assert_array_equal(np.asarray(Image.open(file)), answer["mask"][0])


def train(bundle: Path, folder: Path) -> None:
    """Train as the stock app does, with a mask, or what 3D Slicer makes of boxes, of six frames."""
    items = []
    for index in range(6):
        image = folder / f"case_{index:04d}.png"
        draw(index).save(image)
        label = image.with_suffix(".json" if "detection" in bundle.name else ".mask.png")
        if label.suffix == ".json":
            label.write_text(json.dumps({"markups": [{"center": [8, 8, 0], "size": [4, 4, 1]}]}))
        else:
            Image.fromarray(truth(index)).save(label)
        items.append({"image": str(image), "label": str(label)})
    request = {"model": bundle.name, "device": "cpu", "max_epochs": 2, "val_split": 0.2}
    BundleTrainTask(str(bundle), {})(request, SimpleNamespace(datalist=lambda: items))


def test_the_stock_app_trains_with_masks(tmp_path):
    bundle = make_bundle(tmp_path, "segmentation")
    path = bundle / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": 1}))
    train(bundle, tmp_path)
    checkpoint = torch.load(bundle / "models" / "checkpoint.pt", weights_only=True)
    assert checkpoint["iteration"] == 2 * 5  # the sixth frame chooses the best weights
    assert checkpoint["best"]["metric"] > 0.9
    rates = [group["lr"] / group.get("lr_scale", 1) for group in checkpoint["optimizer"]["param_groups"]]
    np.testing.assert_allclose(rates, 3e-4 * (1 / 8) ** 0.9)  # the schedule ends where the training does


@pytest.mark.parametrize("task", ["detection", "classification"])
def test_where_the_stock_app_cannot_train_a_line_says_which_does(tmp_path, task):
    with pytest.raises(RuntimeError) as caught:
        train(make_bundle(tmp_path, task), tmp_path)
    assert "`train::dataset::data`: another program lists these items" in str(caught.value.__cause__)
