# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from typing import Any  # TorchScript reads the annotations of this module, hence no __future__ import

import torch
from torch import nn

from endofm_monai.networks.blocks import CascadedUpsampler, DetailStem, ResidualStem
from endofm_monai.networks.blocks.divided_space_time import resample_table
from endofm_monai.networks.nets.endofm import EndoFM

# published prefix -> prefix here, see `endofm_monai.weights.load_published`
PUBLISHED_BACKBONE_PREFIXES = {
    "transformer.encoder.layer.": "blocks.",
    "transformer.encoder.encoder_norm.": "norm.",
    "transformer.encoder.cls_token": "cls_token",
}
CONVOLUTIONS = ["conv_more", *(f"blocks.{block}.conv{number}" for block in range(4) for number in (1, 2))]
PUBLISHED_PREFIXES = {
    **PUBLISHED_BACKBONE_PREFIXES,
    "transformer.embeddings.hybrid_model.": "encoder.stem.",
    "transformer.embeddings.patch_embeddings.": "encoder.projection.",
    "transformer.embeddings.position_embeddings": "encoder.position_embeddings",
    **{f"decoder.{name}.0.": f"decoder.{name}.conv." for name in CONVOLUTIONS},
    **{f"decoder.{name}.1.": f"decoder.{name}.adn.N." for name in CONVOLUTIONS},
    "segmentation_head.0.": "head.",
}


class SimpleEncoder(nn.Module):
    """Gives the transformer the frames themselves, and skips of a small convolutional stem beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = DetailStem()

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Frames ``(B, 3, H, W)``, and maps at 1/8, 1/4 and 1/2 of their size."""
        return frames, self.stem(frames)


class HybridEncoder(nn.Module):
    """TransUNet's convolutional encoder, whose output takes the place of the transformer's patch embedding."""

    def __init__(self, embed_dim: int, grid_size: tuple[int, int]) -> None:
        super().__init__()
        self.stem = ResidualStem()
        self.projection = nn.Conv2d(1024, embed_dim, 1)
        self.grid_size = grid_size
        self.position_embeddings = nn.Parameter(torch.zeros(1, grid_size[0] * grid_size[1], embed_dim))
        self.dropout = nn.Dropout(0.1)

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embedded tokens ``(B, D, H/16, W/16)`` of frames ``(B, 3, H, W)``, and the stem's skips."""
        features, skips = self.stem(frames)
        grid = self.projection(features)
        table = resample_table(self.position_embeddings, self.grid_size, (grid.shape[2], grid.shape[3]))
        return self.dropout(grid + table.transpose(1, 2).unflatten(2, [grid.shape[2], grid.shape[3]])), skips


class EndoFMSegmenter(nn.Module):
    """Segments every frame of a clip, with the backbone attending over all its frames.

    Args:
        backbone: the video transformer, with patches of 16 pixels; becomes part of this network. With its
            ``activation_checkpointing`` those of the convolutional stem are recomputed too.
        num_classes: number K of classes, with the background.
        decoder: ``"transunet"`` is the published network (Endo-FM, MICCAI 2023, section 3.2, after TransUNet,
            arXiv:2102.04306), 140,730,786 parameters at base size: a ResNetV2 stem, whose output is embedded and
            transformed by the backbone's blocks, and a decoder of four doublings with three skips. It leaves out the
            backbone's own patch embedding and its position and time tables, so clips have no order.
            ``"simple"`` keeps the whole pre-trained backbone; its token map is decoded likewise, with fewer channels,
            group normalization (the frames of a clip are too much alike for batch statistics), upsampling that keeps
            places, and the skips of a small convolutional stem.

    Example::

        >>> segmenter = EndoFMSegmenter.from_preset("tiny", decoder="simple")
        >>> segmenter(torch.rand(1, 3, 5, 96, 128)).shape
        torch.Size([1, 2, 5, 96, 128])
    """

    def __init__(self, backbone: EndoFM, num_classes: int = 2, decoder: str = "transunet") -> None:
        super().__init__()
        if decoder not in ("transunet", "simple"):
            raise ValueError(f'`decoder` must be "transunet" or "simple", but got {decoder!r}.')
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2, the background is one, but got {num_classes}.")
        if backbone.patch_size != 16:
            raise ValueError(f"The backbone must have patches of 16 pixels, but they have {backbone.patch_size}.")
        self.backbone = backbone
        if decoder == "transunet":
            self.published_prefixes = PUBLISHED_PREFIXES
            self.encoder: nn.Module = HybridEncoder(backbone.embed_dim, backbone.grid_size)
            self.decoder = CascadedUpsampler(backbone.embed_dim)
            left_out: dict[str, None] = dict.fromkeys(("patch_embed.", "pos_embed", "time_embed"))
            backbone.published_prefixes = {**PUBLISHED_BACKBONE_PREFIXES, **left_out}  # type: ignore[assignment]
            backbone.patch_embed = nn.Identity()
            backbone.patch_size = 1  # of clips (B, D, T, rows, columns) that are embedded already
            for name in ("pos_embed", "time_embed"):
                table = getattr(backbone, name)
                delattr(backbone, name)
                backbone.register_buffer(name, torch.zeros_like(table), persistent=False)
        else:
            self.encoder = SimpleEncoder()
            channels, skip_channels = (96, 64, 48, 32, 16), self.encoder.stem.skip_channels
            self.decoder = CascadedUpsampler(backbone.embed_dim, channels, skip_channels, "group8", align_corners=False)
        self.head = nn.Conv2d(self.decoder.out_channels, num_classes, 3, padding=1)

    @classmethod
    def from_preset(
        cls, preset: str = "base", num_classes: int = 2, decoder: str = "transunet", **overrides: Any
    ) -> "EndoFMSegmenter":
        """A segmenter with a backbone of a named size; ``overrides`` are arguments of the backbone."""
        return cls(EndoFM.from_preset(preset, **overrides), num_classes, decoder)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class logits ``(B, K, T, H, W)`` of normalized clips ``(B, 3, T, H, W)``, H and W in multiples of 16."""
        batch, _, num_frames, height, width = x.shape
        if height % 16 != 0 or width % 16 != 0:
            raise ValueError(f"Frames must have sides in multiples of 16 pixels, got {height}x{width}.")
        frames = x.transpose(1, 2).flatten(0, 1)
        frames = frames.contiguous(memory_format=torch.channels_last)  # in which convolutions are fastest
        if torch.jit.is_scripting():
            embedded, skips = self.encoder(frames)
        else:
            embedded, skips = self.backbone.run(self.encoder, frames)
        clip = embedded.unflatten(0, [batch, num_frames]).transpose(1, 2)
        grid = self.backbone.forward_features(clip).token_map  # (B, D, T, H/16, W/16)
        grid = grid.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.head(self.decoder(grid, skips)).unflatten(0, [batch, num_frames]).transpose(1, 2)
