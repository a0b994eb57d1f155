# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from endofm_monai.networks.nets import ConceptNetwork, EndoFM
from endofm_monai.networks.nets.concepts import LocalFeatureIntegration

SIZE = {"img_size": 32, "num_frames": 2, "embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path_rate": 0.0}


@pytest.fixture
def network() -> ConceptNetwork:
    torch.manual_seed(0)
    return ConceptNetwork(EndoFM(**SIZE), 5, hidden_dim=8, bottleneck_dim=4)


@pytest.fixture
def views() -> list[torch.Tensor]:
    return list(torch.randn(6, 3, 3, 2, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_default_sizes_are_the_published_ones():
    network = ConceptNetwork(EndoFM(**SIZE))
    sizes = {name: tuple(prototypes.shape) for name, prototypes in network.prototypes.items()}
    assert sizes == dict.fromkeys(("rgb", "static", "dynamic"), (200, 16))
    assert {head[-1].out_features for head in network.contrast_heads.values()} == {128}
    assert [decoder[0].in_features for decoder in network.decoders.values()] == [200, 100, 100]
    assert {decoder[0].out_features for decoder in network.decoders.values()} == {512}


def test_scores_are_cosines_to_prototypes_that_are_normalized_in_place(network, views):
    with torch.no_grad():
        for prototypes in network.prototypes.values():
            prototypes.mul_(7)
    features = network(views)
    for prototypes in network.prototypes.values():
        torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(10))
    assert [tuple(value.shape) for value in features] == [
        *[(3, 6, 16), (3, 5, 2, 4), (3, 6, 10), (3, 6, 16)],
        *[(3, 2, 10, 16), (3, 2, 5, 16), (3, 2, 5, 16)],
    ]
    class_token = network.backbone.forward_features(views[4]).class_token  # the first dynamic clip's
    torch.testing.assert_close(features.class_tokens[:, 4], class_token)
    told = F.normalize(network.concept_heads["dynamic"](class_token), dim=1)
    torch.testing.assert_close(features.scores[:, 4], told @ network.prototypes["dynamic"].T)
    from_own = network.decoders["dynamic"](features.scores[:, 4, 5:])
    torch.testing.assert_close(features.reconstructions[:, 4], from_own)
    torch.testing.assert_close(features.projections[:, 4, 0], network.contrast_heads["dynamic_rgb"](class_token))
    torch.testing.assert_close(
        features.projections[:, 2, 1], network.contrast_heads["rgb_dynamic"](features.class_tokens[:, 1])
    )


def test_each_clip_is_normalized_by_itself(network, views):
    """As the published code applies the heads clip by clip."""
    before = network(views).scores[:, :2]
    after = network([views[0], 2 * views[1], *views[2:]]).scores[:, :2]
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not after[:, 1].allclose(before[:, 1])


def test_local_features_are_means_of_places_by_their_shares_plus_the_template():
    torch.manual_seed(0)
    integration = LocalFeatureIntegration(4)
    torch.nn.init.zeros_(integration.query.weight)  # every place is shared out evenly
    torch.nn.init.zeros_(integration.mlp[2].weight)
    torch.nn.init.zeros_(integration.mlp[2].bias)
    token_map, templates = torch.randn(2, 4, 2, 3, 3), torch.randn(5, 4)
    tokens = F.layer_norm(token_map.flatten(2).transpose(1, 2), (4,))
    expected = integration.value(tokens).mean(dim=1, keepdim=True) + templates
    torch.testing.assert_close(integration(token_map, templates), expected)


def test_local_features_follow_what_a_place_shows():
    torch.manual_seed(0)
    integration = LocalFeatureIntegration(8)
    for layer in (integration.query, integration.key):
        layer.weight.data = 3 * torch.eye(8)
    templates = torch.eye(8)[:3] * 9
    token_map = torch.zeros(1, 8, 1, 1, 2)
    token_map[0, 0, 0, 0, 0] = token_map[0, 1, 0, 0, 1] = 9  # as the first and the second template
    tokens = integration.token_norm(token_map.flatten(2).transpose(1, 2))
    features = integration(token_map, templates)
    plain = integration.value(tokens[0]) + templates[:2]
    expected = plain + integration.mlp(integration.mlp_norm(plain))
    torch.testing.assert_close(features[0, :2], expected, atol=1e-3, rtol=1e-3)


def test_dropped_tokens_are_refused():
    with pytest.raises(ValueError, match=r"`token_drop` must be 0.*got 0.5"):
        ConceptNetwork(EndoFM(**SIZE, token_drop=0.5))


def test_lower_precision_leaves_scores_in_float32(network, views):
    with torch.autocast("cpu", torch.bfloat16):
        features = network(views)
    assert features.scores.dtype == torch.float32
    assert features.class_tokens.isfinite().all()
    assert float(features.scores.abs().max()) <= 1 + 1e-5
