# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os

from torch import nn

from endofm_monai.networks import unwrap
from endofm_monai.networks.nets import EndoFM
from endofm_monai.weights.architecture import is_image_vit
from endofm_monai.weights.image_vit import video_from_image
from endofm_monai.weights.layouts import read_weights
from endofm_monai.weights.load import copy_weights

__all__ = ["initialize_backbone"]

logger = logging.getLogger(__name__)


def initialize_backbone(
    network: nn.Module, weights: str | os.PathLike | None = None, which: str = "teacher"
) -> nn.Module:
    """Give a network's backbone its starting point: random, published or own weights, or an image ViT.

    The names in the file tell which one it is. What was loaded is logged.

    Args:
        network: an :class:`~endofm_monai.networks.nets.EndoFM`, or a network with one as its ``backbone``; filled in
            place, heads and decoders stay.
        weights: a file that :func:`~endofm_monai.weights.load_published` understands, or an image ViT in timm's layout
            (see :func:`~endofm_monai.weights.image_vit.video_from_image`). None keeps the random initialization.
        which: ``"teacher"`` or ``"student"`` of a training checkpoint.

    Returns:
        ``network``, so that a config can go on with it.

    Raises:
        TypeError: when ``network`` has no such backbone.
        WeightsError: when the file cannot be read safely or does not fit the backbone.

    Example::

        {"_target_": "initialize_backbone", "network": "@backbone", "weights": "@backbone_weights"}
    """
    if weights is None:
        logger.info("The backbone starts from random weights.")
        return network
    backbone = getattr(unwrap(network), "backbone", unwrap(network))
    if not isinstance(backbone, EndoFM):
        raise TypeError(f"`network` must be or have as its `backbone` an EndoFM, but got {type(network).__name__}.")
    published = read_weights(weights, which)
    if is_image_vit(published.state):
        published = video_from_image(published, backbone)
    logger.info("%s", copy_weights(backbone, published))
    return network
