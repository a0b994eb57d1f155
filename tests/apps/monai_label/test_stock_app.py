# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from blob_bundles import make_bundle
from monailabel.tasks.infer.bundle import BundleInferTask
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
