# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""The detector against outputs of the published code, on weights that can be rebuilt from their names."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch

from endofm_monai.inferers.detection import SelectDetections
from endofm_monai.losses import DetectionLoss
from endofm_monai.networks.blocks import split_predictions
from endofm_monai.networks.blocks.detection_head import box_extent
from endofm_monai.networks.nets import EndoFMDetector
from endofm_monai.reference import ReferenceDetector, ReferenceStepSchedule, reference_bias_groups
from endofm_monai.weights import load_published

from .test_segmenter import deviation

pytestmark = pytest.mark.full_size
GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "golden_detection.json").read_text())
RULES = [  # pattern, standard deviation, mean: the first that matches counts
    (r"scales\.\d\.scale$", 0.0, 1.0),
    (r"patch_embed\.proj\.weight$", 0.001, 0.0),
    (r"conv_offset\.weight$", 0.3, 0.0),
    (r"head\.bbox_pred\.bias$", 1.0, 2.5),
    (r"head\.bbox_pred\.weight$", 0.04, 0.0),
    (r"head\.cls_logits\.bias$", 0.05, -3.0),
    (r"head\.dcn_cls_score\.bias$", 0.05, -2.0),
    (r"head\.(cls_logits|centerness)\.weight$", 0.06, 0.0),
    (r"head\.dcn_cls_score\.weight$", 0.03, 0.0),
    (r"head\.dcn_bbox_pred\.weight$", 0.006, 0.0),
    (r"\.bias$|running_mean$", 0.05, 0.0),
    (r"(cls_token|pos_embed|time_embed)$", 0.5, 0.0),
]


@pytest.fixture(scope="module")
def checkpoint(arr, tmp_path_factory) -> Path:
    """A file in the layout of ``kumc.pth``."""
    state = {}
    for key, shape in GOLDEN["state_dict_shapes"].items():
        rule = next((rule for rule in RULES if re.search(rule[0], key)), None)
        if rule is not None:
            state[key] = arr(key, shape, rule[1], rule[2])
        elif len(shape) < 2:
            state[key] = arr(key, shape or [1], 0.05, 1.0)
        elif len(shape) == 2:
            state[key] = arr(key, shape, 0.04)
        else:
            state[key] = arr(key, shape, math.sqrt(2 / math.prod(shape[1:])))
    for name, probe in GOLDEN["weights_check"].items():
        assert deviation(state[name], probe) < 1e-6, name
    path = tmp_path_factory.mktemp("weights") / "kumc.pth"
    torch.save({"model": state, "iteration": 4000}, path)
    return path


@pytest.fixture(scope="module")
def detector(checkpoint) -> EndoFMDetector:
    with torch.device("meta"):  # all weights come from the file
        network = ReferenceDetector.from_preset("base", drop_path_rate=0.0)
    report = load_published(network.to_empty(device="cpu"), checkpoint)
    assert not report.missing
    assert all(name.startswith("body.fpn1.") for name in report.unexpected)
    assert len(report.unexpected) == 9
    return network.eval()


@pytest.mark.parametrize(
    ("section", "case", "frames", "name"),
    [
        ("joint_clip", "T3_192x192", "joint", "det/joint_T3_192x192"),
        ("per_frame", "N11_128x128", "per_frame", "det/frames_N11_128x128"),
        ("per_frame", "N5_192x192", "per_frame", "det/frames_N5_192x192"),
    ],
)
@torch.no_grad()
def test_every_stage_gives_the_published_values(detector, arr, section, case, frames, name):
    expected = GOLDEN[section][case]
    count, size = (int(number) for number in re.match(r"\D+(\d+)_(\d+)", case).groups())
    clip = arr(name, (count, 3, size, size), 60).transpose(0, 1)[None]
    detector.frames = frames
    encoded = clip if frames == "joint" else clip[0].transpose(0, 1).unsqueeze(2)
    token_map = detector.backbone.forward_features(encoded).token_map.transpose(1, 2).flatten(0, 1)
    found = {f"C{level + 3}": value for level, value in enumerate(detector.neck.body(token_map))}
    for key, probe in expected.get("body", {}).items():
        assert deviation(found[key], probe) < 1e-4, key

    pyramid = detector.neck(token_map)
    levels = detector.head.describe(pyramid, count)
    worst = {}
    for index, (level, stride) in enumerate(zip(levels, detector.head.strides, strict=True)):
        extent = box_extent(level.ltrb, stride)
        difference = torch.cat([extent[:, :1], extent[:, :1] - extent[:, 1:]], dim=1)
        only = detector.head.refine_level(level, stride)
        parts = split_predictions(only.flatten(2))
        values = {
            "fpn": pyramid[index],
            "cls_tower": level.class_features[0],
            "bbox_tower": level.box_features[0],
            "cls_logits": level.class_logits[:, 0],
            "centerness": level.centerness[:, 0],
            "bbox_ltrb": level.ltrb[:, 0],
            "pre_bbox": parts.first_box,
            "shape_difference": difference[0],
            "stft_cls_logits": only[:, -6:-4],
            "stft_bbox_reg": only[:, -4:],
        }
        branches = {
            "cls": (detector.head.class_transformation, level.class_features),
            "bbox": (detector.head.box_transformation, level.box_features),
        }
        for branch, (transformation, features) in branches.items():
            aligned = transformation.align(features[0], difference[0])
            values |= {
                f"dcn_{branch}_offsets": transformation.conv_offset(difference[0]),
                f"dcn_{branch}_features": aligned,
                f"attention_{branch}": transformation.attention(aligned[None])[0].T,
                f"fused_{branch}": transformation(features, extent),
            }
        probes = expected["levels"][f"P{index + 3}"]
        if "locations_first3_last" in probes:
            locations = parts.location[0][[0, 1, 2, -1]]
            assert locations.tolist() == probes.pop("locations_first3_last")
        assert set(values) == set(probes)
        for key, probe in probes.items():
            worst[f"P{index + 3} {key}"] = deviation(values[key], probe)
    # Rounding grows along the network: the published code on another machine is this far from itself.
    assert max(worst.values()) < 5e-4, max(worst.items(), key=lambda item: item[1])

    if "detections" in expected:
        wanted = expected["detections"]
        (found,) = SelectDetections()(detector.head.refine(levels))
        assert abs(len(found["label_scores"]) - wanted["count"]) <= 3
        for rank, box in enumerate(wanted["top20"]):
            assert found["label"][rank] == box["label"]
            assert found["label_scores"][rank] == pytest.approx(box["score"], rel=1e-4)
            torch.testing.assert_close(
                found["box"][rank].clamp(0, size - 1), torch.tensor(box["box"]), atol=0.01, rtol=0
            )
        assert found["label_scores"].sum() == pytest.approx(wanted["scores_sum"], rel=1e-2)


@pytest.fixture(scope="module")
def training(detector) -> EndoFMDetector:
    network = copy.deepcopy(detector).double().train()
    network.frames = "joint"
    return network


@pytest.mark.parametrize("sample", GOLDEN["train_step"]["samples"], ids=lambda sample: sample["tag"])
def test_training_step_gives_the_published_losses_and_gradients(training, arr, sample):
    network = training
    network.zero_grad()
    clip = arr(f"det/train_{sample['tag']}", (3, 3, 192, 192), 60).double().transpose(0, 1)[None]
    target = {
        "box": torch.tensor(sample["gt_boxes_key_frame"]).double(),
        "label": torch.tensor(sample["gt_labels"]),
    }
    terms = DetectionLoss().terms(network(clip), [target])
    expected = sample["float64"]
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected["losses"][f"loss_{name}"], rel=1e-5), name
    sum(terms.values()).backward()

    names = {}  # published name by ours
    for key in GOLDEN["state_dict_shapes"]:
        clean = key.removeprefix("backbone.")
        prefix = next(prefix for prefix in network.published_prefixes if clean.startswith(prefix))
        own = network.published_prefixes[prefix]
        if own is not None:
            names[("backbone." if own == "" else "") + own + clean.removeprefix(prefix)] = key
    gradients = {names[name]: parameter.grad for name, parameter in network.named_parameters()}
    assert sorted(name for name, gradient in gradients.items() if gradient is None) == [
        "rpn.head.dcn_bbox_subnet.conv_offset.weight",
        "rpn.head.dcn_cls_subnet.conv_offset.weight",
    ]
    total = math.sqrt(sum(float(g.square().sum()) for g in gradients.values() if g is not None))
    assert total == pytest.approx(expected["grad_l2_total"], rel=1e-5)
    for name, probe in expected["grad"].items():
        if probe["l2"] == 0:
            assert not gradients[name].any(), name
        else:
            assert deviation(gradients[name], probe) < 1e-5, name

    if sample is GOLDEN["train_step"]["samples"][-1]:
        expected = GOLDEN["train_step"]["update_after_last_sample"]
        groups = reference_bias_groups(network, ReferenceStepSchedule(0.0025)(0))
        parameters = dict(network.named_parameters())
        own = {published: name for name, published in names.items()}
        for name, (learning_rate, weight_decay) in expected["lr_and_wd_of"].items():
            (group,) = [g for g in groups if any(p is parameters[own[name]] for p in g["params"])]
            assert group["lr"] == pytest.approx(learning_rate, rel=1e-7)
            assert group["weight_decay"] == weight_decay
        torch.optim.SGD(groups, lr=0.0025, momentum=expected["momentum"]).step()
        for name, probe in expected["params_after"].items():
            assert deviation(parameters[own[name]], probe) < 1e-5, name
