# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.losses import ConceptLoss
from endofm_monai.losses.concepts import align, contrast, contrast_clips, contrast_concepts, entropy, match_concepts
from endofm_monai.losses.spatial_temporal_matching import sinkhorn
from endofm_monai.networks.nets import ConceptFeatures


def random_features(videos: int = 4, concepts: int = 12, dim: int = 6) -> ConceptFeatures:
    """Features that might be of a network, each with a gradient."""
    generator = torch.Generator().manual_seed(videos)

    def draw(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(videos, *shape, generator=generator), dim=-1).requires_grad_()

    shapes = [
        (6, dim),
        (5, 2, 3),
        (6, 2 * concepts),
        (6, dim),
        *((2, n, dim) for n in (2 * concepts, concepts, concepts)),
    ]
    return ConceptFeatures(*(draw(*shape) for shape in shapes))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ([[1, 0], [0, 1]], 6.2487475566e-07),
        ([[0.6, 0.8], [0.8, 0.6]], 2.9129867700),
        ([[0.8, 0.6], [0.6, 0.8]], 0.0558439129),
    ],
)
def test_contrast_has_the_values_of_the_formula_and_no_gradient_into_keys(key, expected):
    query, key = (torch.tensor(rows, dtype=torch.float64, requires_grad=True) for rows in ([[1, 0], [0, 1]], key))
    value = contrast(query, key)
    assert float(value) == pytest.approx(expected, rel=1e-8)
    assert float(contrast(3 * query, 5 * key)) == pytest.approx(expected, rel=1e-8)
    value.backward()
    assert key.grad is None
    assert query.grad.isfinite().all()


def test_clips_are_contrasted_across_the_two_clips_both_ways():
    first, second = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    pairs = [(first[:, 0], second[:, 1]), (first[:, 1], second[:, 0])]
    expected = sum(contrast(one, other) + contrast(other, one) for one, other in pairs) / 2
    torch.testing.assert_close(contrast_clips(first, second), expected)


def test_alignment_has_the_values_of_the_formula():
    first, second = (torch.tensor(rows) for rows in ([[0.2, 0], [0.1, 0]], [[0.1, 0], [0, 0.1]]))
    scores = torch.stack([first, second], dim=1).requires_grad_()
    for target, other, expected in ((first, second, 0.5822203445), (second, first, 0.7796963103)):
        value = -(sinkhorn(target, 0.05) * F.log_softmax(other / 0.1, dim=1)).sum(dim=1).mean()
        assert float(value) == pytest.approx(expected, abs=1e-6)
    value = align(scores, scores[:0])
    assert float(value) == pytest.approx(0.6809583274, abs=1e-6)
    value.backward()
    # the targets take no gradient: that of a cross-entropy alone is prediction less target
    expected = ((second / 0.1).softmax(dim=1) - sinkhorn(first, 0.05)) / 0.1 / 4
    torch.testing.assert_close(scores.grad[:, 1], expected)


def test_earlier_scores_move_the_targets():
    scores = torch.tensor([[[0.2, 0.0]] * 2, [[0.1, 0.0]] * 2])
    targets = sinkhorn(torch.tensor([[0.2, 0.0], [0.1, 0.0], [0.0, 0.0]]), 0.05)[:2]
    expected = -(targets * F.log_softmax(scores[:, 0] / 0.1, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(align(scores, torch.zeros(1, 2, 2)), expected)


def test_entropy_has_the_values_of_the_formula():
    assert float(entropy(torch.tensor([[[0.1, 0.0]]]))) == pytest.approx(0.58220311, abs=1e-6)
    assert float(entropy(torch.zeros(3, 2, 2))) == pytest.approx(math.log(2))


def unit(angles: list[list[float]]) -> torch.Tensor:
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=-1)


@pytest.mark.parametrize(
    ("rank", "pull", "push", "count"), [(2, 1e-5, 0.1599960000, 1), (3, 0.2679791924, 1.0985374943, 3)]
)
def test_local_contrast_has_the_values_of_the_formula(rank, pull, push, count):
    query = unit([[0, 0, 0], [60, 60, 60]]).requires_grad_()
    key = unit([[0, 30, 0], [60, 60, 90]]).requires_grad_()
    scores = torch.tensor([[[0.9, 0.5, 0.1], [0.8, 0.6, 0.2]], [[0.9, 0.5, 0.1], [0.1, 0.9, 0.5]]])
    active = (scores > scores.topk(rank, dim=2).values[..., -1:]).all(dim=1)
    assert int(active.sum()) == count
    sums = match_concepts(query, key, active)
    assert [float(value) for value in sums] == pytest.approx([pull, push], abs=1e-9)
    back = match_concepts(key, query, active)
    whole = contrast_concepts(torch.stack([query, key], dim=1), scores, rank)
    assert float(whole) == pytest.approx(float(sum(sums) + sum(back)) / (1 + 2 * count))
    sum(sums).backward()
    assert key.grad is None


def test_reconstruction_of_itself_is_minus_one_and_leaves_the_class_token():
    features = random_features()
    terms = ConceptLoss(12, 4, 0).terms(features._replace(reconstructions=3 * features.class_tokens.detach()))
    for name in ("rgb", "static", "dynamic"):
        assert float(terms[f"reconstruction_{name}"]) == pytest.approx(-1)
    sum(ConceptLoss(12, 4, 0).terms(features).values()).backward()
    assert features.class_tokens.grad is None
    assert all(value.grad.any() for name, value in features._asdict().items() if name != "class_tokens")


def test_streams_meet_the_concepts_of_their_kind():
    scores = torch.zeros(2, 6, 24)
    scores[:, 4:, 0] = 1  # dynamic clips speak of a static concept
    terms = ConceptLoss(12, 2, 0).terms(random_features(2)._replace(scores=scores))
    assert float(terms["entropy_static"]) > -math.log(12) + 0.1
    assert float(terms["entropy_dynamic"]) == pytest.approx(-math.log(12))
    assert float(terms["alignment_static"]) == pytest.approx(math.log(12), rel=1e-6)


def test_total_weighs_the_terms_and_counts_local_ones_when_told():
    loss, features = ConceptLoss(12, 4, 8), random_features()
    without = loss(features)
    values = loss.values
    local = sum(value for name, value in values.items() if name.startswith("local"))
    weighed = {"entropy": 0.1, "contrast": 1, "alignment": 1, "reconstruction": 1}
    expected = sum(weighed.get(name.split("_")[0], 0) * value for name, value in values.items())
    torch.testing.assert_close(without, expected)
    loss.local_weight = 1.0
    torch.testing.assert_close(loss(features), expected + local)
    assert 1 <= float(values["concepts_used"]) <= 12
    assert 0 <= float(values["concept_entropy"]) <= math.log(12)


def test_queue_is_filled_from_the_start_and_used_when_told():
    loss, features = ConceptLoss(12, 4, 10), random_features()
    alone = loss(features)
    assert float(loss(random_features(3))) != float(alone)
    assert int(loss.queue_rows) == 7
    assert loss.queue.shape == (10, 6, 24)
    torch.testing.assert_close(loss.queue[3:7], features.scores.detach())
    torch.testing.assert_close(loss.eval()(features), alone)
    loss.uses_queue = True
    assert float(loss(features)) != float(alone)
    assert int(loss.queue_rows) == 7  # not in training
    loss.train()(features)
    assert int(loss.queue_rows) == 10


def test_one_video_that_is_left_gives_a_finite_loss():
    loss = ConceptLoss(12, 2, 0)
    loss.local_weight = 1.0
    loss(random_features(1)).backward()
    assert all(value.isfinite() for value in loss.values.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_concepts": 9}, "`num_concepts` must be at least 10"),
        ({"batch_size": 1}, "`batch_size` must be at least 2"),
        ({"queue_length": 3}, "`queue_length` must hold a batch of 4 videos, or be 0, got 3"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ConceptLoss(**{"num_concepts": 12, "batch_size": 4, **settings})
