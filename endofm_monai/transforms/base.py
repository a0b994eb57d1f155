# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from abc import abstractmethod
from collections.abc import Generator, Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform


def to_float(clip: torch.Tensor) -> torch.Tensor:
    """Give a clip in floating point: uint8 ``0..255`` becomes float32 ``0..1``, floating point stays as it is."""
    if clip.is_floating_point():
        return clip
    if clip.dtype != torch.uint8:
        raise TypeError(f"A clip must be uint8 (0..255) or floating point (0..1), found {clip.dtype}.")
    return clip.to(torch.float32).div_(255)


class RandClipTransform(RandomizableTransform):
    """Base of random transforms that treat all frames of a clip alike, with the probability ``prob``.

    It takes a clip ``(C, T, H, W)``, uint8 ``0..255`` or floating point ``0..1``, and gives a floating-point one
    (float32 for uint8) without changing its input. Random numbers come from ``self.R``, the same on all devices.
    """

    prob = 1.0  # which MONAI's constructor sets, but that of a dataclass does not call it
    _do_transform = True

    def __call__(self, clip: torch.Tensor) -> torch.Tensor:
        if clip.ndim != 4:
            raise ValueError(f"{type(self).__name__} expects a clip (C, T, H, W), found {tuple(clip.shape)}.")
        self.randomize(clip)
        return self.apply(clip) if self._do_transform else to_float(clip)

    @abstractmethod
    def apply(self, clip: torch.Tensor) -> torch.Tensor:
        """Transform one clip ``(C, T, H, W)`` with what ``randomize`` drew."""


class ClipTransformd(MapTransform):
    """Base of the dictionary versions; they take the keys, then the arguments of their ``array_transform``."""

    array_transform: ClassVar[type[Transform]]

    def __init__(self, keys: KeysCollection, *args: Any, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform: Any = self.array_transform(*args, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the clips at ``keys``; all else stays."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}


class RandClipTransformd(Randomizable, ClipTransformd):
    """Base of the dictionary versions of random transforms: the clips at all keys have the same draws."""

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Randomizable:
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def key_iterator(self, data: Mapping[Hashable, Any], *more: Any) -> Generator:
        """Go through the keys, before each of which the random state is the same."""
        state = self.transform.R.get_state()
        for key in super().key_iterator(data, *more):
            self.transform.R.set_state(state)
            yield key


def dictionary_version(
    array_transform: type[Transform], base: type[ClipTransformd] | None = None
) -> type[ClipTransformd]:
    """Make the dictionary version of a transform, which configs name, as ``FlipClipd`` of ``FlipClip``."""
    base = base or (RandClipTransformd if issubclass(array_transform, Randomizable) else ClipTransformd)
    doc = f"Dictionary version of :class:`{array_transform.__name__}`."
    members = {"array_transform": array_transform, "__module__": array_transform.__module__, "__doc__": doc}
    return type(f"{array_transform.__name__}d", (base,), members)
