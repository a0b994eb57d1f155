# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_two_processes

from endofm_monai.losses import DetectionLoss
from endofm_monai.losses.detection import first_stage_targets, second_stage_targets
from endofm_monai.networks.blocks import split_predictions
from endofm_monai.reference import ReferenceDetectionLoss

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_detection.json").read_text())
STRIDES = (8, 16, 32, 64, 128)


def published_outputs(arr, case) -> dict[str, list[torch.Tensor]]:
    """Head outputs of the golden file's recipe, by name, one a level."""
    names = {
        "cls": (2, 2.5, -2.5),
        "ctr": (1, 1, 0),
        "ltrb": (4, 1.5, 2.5),
        "scls": (2, 1.5, -0.5),
        "sreg": (4, 0.3, 0),
    }
    outputs = {
        name: [
            arr(f"det/{case['tag']}_{name}_l{level}", (1, channels, *size), std, mean)
            for level, size in enumerate(case["level_sizes"])
        ]
        for name, (channels, std, mean) in names.items()
    }
    outputs["ltrb"] = [ltrb.relu() * stride for ltrb, stride in zip(outputs["ltrb"], STRIDES, strict=True)]
    for tensor in (tensor for levels in outputs.values() for tensor in levels):
        tensor.requires_grad_()
    return outputs


def prediction(outputs: dict[str, list[torch.Tensor]]) -> torch.Tensor:
    """The detector's output tensor made of them."""
    levels = []
    for level, stride in enumerate(STRIDES):
        height, width = outputs["cls"][level].shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack([x * stride + stride // 2, y * stride + stride // 2, torch.full_like(x, stride)])[None]
        parts = [place, *(outputs[name][level] for name in ("cls", "ctr", "ltrb", "scls", "sreg"))]
        levels.append(torch.cat(parts, dim=1).flatten(2))
    return torch.cat(levels, dim=2)


@pytest.mark.parametrize("case", GOLDEN["loss_unit"]["cases"], ids=lambda case: case["tag"])
def test_targets_losses_and_gradients_are_the_published_ones(arr, case):
    outputs = published_outputs(arr, case)
    pred = prediction(outputs)
    assert pred.shape[2] == case["locations_total"]
    box, label = torch.tensor(case["gt_boxes"]).reshape(-1, 4), torch.tensor(case["gt_labels"], dtype=torch.long)
    out = split_predictions(pred)

    found, ltrb = first_stage_targets(out.location[0], out.stride[0], box, label)
    assert found.nonzero().squeeze(1).tolist() == [positive["index"] for positive in case["fcos_positive"]]
    for positive in case["fcos_positive"]:
        assert found[positive["index"]] == positive["label"]
        torch.testing.assert_close(ltrb[positive["index"]], torch.tensor(positive["ltrb"]))
    found, delta = second_stage_targets(out.first_box[0].detach(), box, label)
    index = found.nonzero().squeeze(1)
    assert len(index) == case["stft_positive_count"]
    assert index.sum() == case["stft_positive_index_sum"]
    assert index[:20].tolist() == case["stft_positive_first20"]
    torch.testing.assert_close(delta[index[:20]], torch.tensor(case["stft_delta_first20"]), rtol=1e-5, atol=1e-5)
    assert delta[index].abs().sum().item() == pytest.approx(case["stft_delta_abs_sum_positive"], rel=1e-5)

    terms = DetectionLoss().terms(pred, [{"box": box, "label": label}])
    for name, expected in case["losses"].items():
        assert terms[name.removeprefix("loss_")].item() == pytest.approx(expected, rel=1e-5), name
    DetectionLoss()(pred, [{"box": box, "label": label}]).backward()
    for name, expected in case["grad_l2_of_sum"].items():
        norm = np.sqrt(sum(float(tensor.grad.square().sum()) for tensor in outputs[name]))
        assert norm == pytest.approx(expected, rel=1e-5), name


def random_prediction(frames: int = 2, classes: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    levels = []
    for stride, (height, width) in zip(STRIDES, [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)], strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack([x * stride + stride // 2, y * stride + stride // 2, torch.full_like(x, stride)])
        outputs = torch.randn(frames, 2 * classes + 9, height, width, generator=generator)
        outputs[:, classes + 1 : classes + 5] = outputs[:, classes + 1 : classes + 5].relu() * stride
        levels.append(torch.cat([place.expand(frames, -1, -1, -1), outputs], dim=1).flatten(2))
    return torch.cat(levels, dim=2).requires_grad_()


def target(*boxes: tuple[float, ...], label: int = 1) -> dict[str, torch.Tensor]:
    return {"box": torch.tensor(boxes).reshape(-1, 4), "label": torch.full((len(boxes),), label)}


def test_frames_without_a_box_teach_what_is_no_polyp():
    pred = random_prediction()
    terms = DetectionLoss().terms(pred, [target(), target()])
    assert {name for name, value in terms.items() if value > 0} == {"cls", "stft_cls"}
    sum(terms.values()).backward()
    assert pred.grad[:, 3:5].gt(0).all()  # less of each class, everywhere


def test_a_batch_without_a_box_weighs_as_much_as_the_batches_before_it_did():
    pred, box = random_prediction(1), target((20, 20, 90, 70))
    untaught, taught = DetectionLoss(), DetectionLoss()
    alone = untaught.terms(pred, [target()])
    taught.terms(pred, [box])
    positives = taught.usual_positives.tolist()
    assert min(positives) > 1
    after = taught.terms(pred, [target()])
    assert taught.usual_positives.tolist() == positives
    for name, usual in zip(("cls", "stft_cls"), positives, strict=True):
        torch.testing.assert_close(after[name] * usual, alone[name])
    resumed = DetectionLoss()
    resumed.load_state_dict(taught.state_dict())
    assert resumed.terms(pred, [target()]) == after


def test_the_published_loss_learns_nothing_from_them():
    pred = random_prediction()
    with_box = ReferenceDetectionLoss()(pred, [target((20, 20, 90, 70)), target()])
    torch.testing.assert_close(with_box, DetectionLoss()(pred[:1], [target((20, 20, 90, 70))]))
    nothing = ReferenceDetectionLoss()(pred, [target(), target()])
    assert nothing == 0
    nothing.backward()
    assert not pred.grad.any()


BOXES = [target((20, 20, 90, 70)), target((30, 10, 60, 40)), target(), target((50, 50, 120, 100))]


def run_rank(rank: int, folder: str) -> None:
    pred, boxes = random_prediction(4).split([3, 1])[rank].detach().requires_grad_(), [BOXES[:3], BOXES[3:]][rank]
    loss = DetectionLoss()(pred, boxes) * len(boxes) * 2 / 4  # as the trainer counts it
    loss.backward()
    torch.save([loss, pred.grad], f"{folder}/{rank}.pt")


def test_the_mean_of_processes_is_the_loss_of_the_whole_batch_also_where_one_has_fewer_clips(tmp_path):
    run_two_processes(run_rank, str(tmp_path))
    losses, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    pred = random_prediction(4)
    whole = DetectionLoss()(pred, BOXES)
    whole.backward()
    torch.testing.assert_close(sum(losses) / 2, whole)
    torch.testing.assert_close(torch.cat(gradients) / 2, pred.grad)


def test_first_stage_boxes_without_area_are_safe():
    pred = random_prediction(1)
    flat = pred.detach().clone()
    flat[:, 6:10] = 0  # all boxes are points
    flat.requires_grad_()
    loss = DetectionLoss()(flat, [target((20, 20, 23, 23), (40, 40, 110, 100))])
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(flat.grad).all()


def test_a_thousand_boxes_are_fine():
    corner = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1)) * 100
    boxes = torch.cat([corner, corner + 20], dim=1)
    loss = DetectionLoss()(random_prediction(1), [{"box": boxes, "label": torch.ones(1000, dtype=torch.long)}])
    assert torch.isfinite(loss)


def test_targets_must_match_the_frames():
    with pytest.raises(ValueError, match="got 1 for 2 frames"):
        DetectionLoss()(random_prediction(), [target()])
