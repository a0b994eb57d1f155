# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from endofm_monai.networks.nets.endofm import EndoFM
from endofm_monai.networks.nets.student_teacher import SyncedBatchNorm

STREAMS = ("rgb", "static", "dynamic")  # two clips each, in this order
CONTRASTS = ("rgb_rgb", "rgb_static", "rgb_dynamic", "static_rgb", "dynamic_rgb")  # of which stream, and to match which


class ConceptFeatures(NamedTuple):
    """What :class:`ConceptNetwork` makes of the six clips of B videos, with K concepts of either kind."""

    class_tokens: torch.Tensor  # (B, 6, D)
    projections: torch.Tensor  # (B, 5, 2, P), of both clips, in the order of `CONTRASTS`
    scores: torch.Tensor  # (B, 6, 2K), cosines in float32 to the prototypes, static ones first
    reconstructions: torch.Tensor  # (B, 6, D), of the class tokens, from the scores
    rgb_concepts: torch.Tensor  # (B, 2, 2K, D), what the clip shows of each concept, normalized
    static_concepts: torch.Tensor  # (B, 2, K, D)
    dynamic_concepts: torch.Tensor  # (B, 2, K, D)


class LocalFeatureIntegration(nn.Module):
    """Gathers from a token map what belongs to each of some templates, in one step of attention.

    Each place of the map is shared out among the templates (softmax), then each template takes the mean of the places
    by their shares, adds itself, and passes an MLP.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_norm, self.template_norm, self.mlp_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))

    def forward(self, token_map: torch.Tensor, templates: torch.Tensor) -> torch.Tensor:
        """Features ``(B, N, D)`` of ``templates`` ``(N, D)`` in a map ``(B, D, T, H, W)``."""
        tokens = self.token_norm(token_map.flatten(2).transpose(1, 2))  # (B, L, D)
        query = self.query(self.template_norm(templates)) * templates.shape[1] ** -0.5
        shares = (query @ self.key(tokens).transpose(1, 2)).float().softmax(dim=1) + 1e-8  # (B, N, L)
        features = shares / shares.sum(dim=2, keepdim=True) @ self.value(tokens).float() + templates
        return features + self.mlp(self.mlp_norm(features))


class ConceptNetwork(nn.Module):
    """A backbone and the heads by which it learns static and dynamic concepts of video: VCL (Qian et al., ECCV 2022).

    The backbone sees six clips of a video: two ``rgb`` ones, a still frame of either (``static``) and the frame
    differences of either (``dynamic``). Heads project the class token for the contrast of clips, compare it with 2K
    prototypes a stream (K static, then K dynamic concepts), and reconstruct it from these scores; the token map gives
    the local features of each concept. Batch normalization goes over the videos of all processes, for each clip by
    itself, always by the statistics of the batch.

    Args:
        num_concepts: number K of static, and of dynamic concepts.
        hidden_dim: width of the reconstruction's hidden layers.
        bottleneck_dim: width P of the features that are contrasted.
    """

    num_global_views = 6  # all clips are of one size

    def __init__(
        self, backbone: EndoFM, num_concepts: int = 100, hidden_dim: int = 512, bottleneck_dim: int = 128
    ) -> None:
        super().__init__()
        if backbone.token_drop > 0:
            raise ValueError(f"`token_drop` must be 0: local concepts need all tokens, but got {backbone.token_drop}.")
        dim, both = backbone.embed_dim, 2 * num_concepts
        self.num_concepts = num_concepts
        self.backbone = backbone
        self.contrast_heads = nn.ModuleDict({name: _mlp(dim, dim, bottleneck_dim) for name in CONTRASTS})
        self.concept_heads = nn.ModuleDict({name: _mlp(dim, dim, dim, batch_norm=True) for name in STREAMS})
        self.prototypes = nn.ParameterDict({name: torch.randn(both, dim) for name in STREAMS})
        self.decoders = nn.ModuleDict(
            {name: _mlp(both if name == "rgb" else num_concepts, hidden_dim, dim, batch_norm=True) for name in STREAMS}
        )
        self.integration = LocalFeatureIntegration(dim)

    @property
    def last_layer(self) -> nn.Module:
        """What gets no gradient in the first epochs."""
        return self.prototypes

    def forward(self, views: Sequence[torch.Tensor]) -> ConceptFeatures:
        """Features of six normalized clips ``(B, C, T, H, W)``: two ``rgb``, two ``static``, two ``dynamic`` ones."""
        with torch.no_grad():
            for prototypes in self.prototypes.values():
                prototypes.copy_(F.normalize(prototypes, dim=1))
        features = self.backbone.forward_features(torch.cat(list(views)))
        class_tokens = features.class_token.unflatten(0, (len(STREAMS), 2, -1))  # (3, 2, B, D)
        token_maps = features.token_map.unflatten(0, (len(STREAMS), 2, -1))
        scores, reconstructions, local = [], [], []
        shown = (slice(None), slice(self.num_concepts), slice(self.num_concepts, None))  # by the clips of each stream
        for index, (name, own) in enumerate(zip(STREAMS, shown, strict=True)):
            prototypes = self.prototypes[name]
            for class_token, token_map in zip(class_tokens[index], token_maps[index], strict=True):
                concepts = self.concept_heads[name](class_token)
                with torch.autocast(concepts.device.type, enabled=False):  # temperatures would multiply rounding errors
                    scores.append(F.normalize(concepts.float(), dim=1) @ prototypes.T)
                reconstructions.append(self.decoders[name](scores[-1][:, own]))
                local.append(F.normalize(self.integration(token_map, prototypes[own]).float(), dim=2))
        projections = [
            torch.stack([head(token) for token in class_tokens[STREAMS.index(name.split("_")[0])]], dim=1)
            for name, head in self.contrast_heads.items()
        ]
        return ConceptFeatures(
            features.class_token.unflatten(0, (len(views), -1)).transpose(0, 1),
            torch.stack(projections, dim=1),
            torch.stack(scores, dim=1),
            torch.stack(reconstructions, dim=1),
            *(torch.stack(local[first : first + 2], dim=1) for first in (0, 2, 4)),
        )


def _mlp(inputs: int, hidden: int, outputs: int, batch_norm: bool = False) -> nn.Sequential:
    norm = [SyncedBatchNorm(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *norm, nn.ReLU(), nn.Linear(hidden, outputs))
