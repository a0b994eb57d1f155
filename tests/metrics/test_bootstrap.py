# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from endofm_monai.metrics import bootstrap_intervals


def bootstrap_interval(statistic, groups, **arguments):
    return bootstrap_intervals(lambda items: {"": statistic(items)}, groups, **arguments)[""]


def test_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_interval(lambda items: values[items].mean(), groups=np.arange(400))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.015)
    assert high == pytest.approx(values.mean() + half, abs=0.015)


def test_groups_are_drawn_whole():
    """Ten copies of each value say no more than one: the interval stays as wide as without them."""
    values = np.random.default_rng(0).standard_normal(40)
    copies = values.repeat(10)
    single = bootstrap_interval(lambda items: values[items].mean(), groups=np.arange(40))
    grouped = bootstrap_interval(lambda items: copies[items].mean(), groups=np.arange(40).repeat(10))
    apart = bootstrap_interval(lambda items: copies[items].mean(), groups=np.arange(400))
    assert grouped == pytest.approx(single)
    assert apart[1] - apart[0] < 0.5 * (grouped[1] - grouped[0])


def test_groups_of_any_order_and_size():
    values = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    groups = ["b", "a", "b", "a", "a"]
    seen = []
    bootstrap_interval(lambda items: seen.append(tuple(items)) or 0.0, groups, resamples=50)
    assert {len(items) for items in seen} == {4, 5, 6}
    assert all(values[list(items)].sum() == 3 * (sum(item == 1 for item in items)) for items in seen)


def test_seed_and_level():
    values = np.random.default_rng(1).standard_normal(30)

    def interval(**kwargs):
        return bootstrap_interval(lambda items: values[items].mean(), np.arange(30), **kwargs)

    assert interval() == interval()
    assert interval(seed=1) != interval()
    assert interval(level=0.5)[1] < interval()[1]


def test_undefined_resamples_are_left_out():
    labels = np.array([0, 1])
    interval = bootstrap_interval(lambda items: float("nan") if labels[items].min() else 0.5, np.arange(2))
    assert interval == (0.5, 0.5)
    assert np.isnan(bootstrap_interval(lambda items: float("nan"), [0, 1])).all()


@pytest.mark.parametrize("wrong", [{"groups": []}, {"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="at least one item|`level`"):
        bootstrap_interval(lambda items: 0.0, **{"groups": [0, 1], **wrong})


def test_intervals_of_several_statistics_are_those_of_each():
    values = np.random.default_rng(0).standard_normal(30)
    both = bootstrap_intervals(
        lambda items: {"mean": values[items].mean(), "max": values[items].max()}, np.arange(30), resamples=100
    )
    assert both["mean"] == bootstrap_interval(lambda items: values[items].mean(), np.arange(30), resamples=100)
    assert both["max"][1] == values.max()
