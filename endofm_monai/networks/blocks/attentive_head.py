# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import torch  # TorchScript reads the annotations of this module, hence no __future__ import
from torch import nn

__all__ = ["AttentiveHead"]


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
