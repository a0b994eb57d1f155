# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import torch  # TorchScript reads the annotations of this module, hence no __future__ import
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["AttentiveHead", "ProjectionHead"]


class AttentiveHead(nn.Module):
    """Classification head that looks at all tokens: a learned query attends over them, then a linear layer.

    The attentive probe of V-JEPA (Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations
    from Video", 2024, section 3.3) in its shortest form. It finds a small polyp that the class token may have missed.

    Args:
        embed_dim: width D of a token.
        num_classes: number of logits.
        num_heads: attention heads; must divide ``embed_dim``.
    """

    def __init__(self, embed_dim: int, num_classes: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.linear = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, num_classes)`` of tokens ``(B, L, D)``, in any order."""
        tokens = self.norm(tokens)
        attended, _ = self.attention(
            self.query.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens, tokens, need_weights=False
        )
        return self.linear(attended[:, 0])


class ProjectionHead(nn.Module):
    """Projection head of the pre-training: an MLP, then cosines to ``num_prototypes`` learned directions.

    Features go through a 3-layer GELU MLP to a bottleneck, are L2-normalized, and meet a weight-normalized linear
    layer whose norms are fixed at 1, so that the logits are cosines in [-1, 1]. The cosines are always computed in
    float32: a temperature of 0.04 multiplies their rounding error by 25.

    Args:
        in_dim: width D of the class token.
        num_prototypes: number K of logits; 65,536 as published.
        hidden_dim: width of the MLP's hidden layers.
        bottleneck_dim: width of the normalized features.
    """

    def __init__(
        self, in_dim: int, num_prototypes: int = 65536, hidden_dim: int = 2048, bottleneck_dim: int = 256
    ) -> None:
        super().__init__()
        self.num_prototypes = num_prototypes
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, num_prototypes, bias=False))
        norms = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(norms)
        norms.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cosines ``(..., K)`` in float32 of class tokens ``(..., D)``."""
        bottleneck = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.last_layer(F.normalize(bottleneck.float(), dim=-1))
