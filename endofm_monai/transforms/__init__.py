# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.transforms.augment_views import RandAugmentViews, RandAugmentViewsd
from endofm_monai.transforms.blur import RandGaussianBlurClip, RandGaussianBlurClipd
from endofm_monai.transforms.color import (
    RandColorJitterClip,
    RandColorJitterClipd,
    RandGrayscaleClip,
    RandGrayscaleClipd,
)
from endofm_monai.transforms.flip import RandFlipClip, RandFlipClipd
from endofm_monai.transforms.load_clip import LoadClip, LoadClipd
from endofm_monai.transforms.load_views import RandLoadViews, RandLoadViewsd
from endofm_monai.transforms.normalization import (
    PRETRAINING_MEAN,
    PRETRAINING_STD,
    REFERENCE_FINETUNING_MEAN,
    REFERENCE_FINETUNING_STD,
    NormalizeClip,
    NormalizeClipd,
)
from endofm_monai.transforms.resize import ResizeClip, ResizeClipd
from endofm_monai.transforms.resized_crop import RandResizedCropClip, RandResizedCropClipd
from endofm_monai.transforms.solarize import RandSolarizeClip, RandSolarizeClipd
from endofm_monai.transforms.view_plan import View, ViewPlan

__all__ = [
    "PRETRAINING_MEAN",
    "PRETRAINING_STD",
    "REFERENCE_FINETUNING_MEAN",
    "REFERENCE_FINETUNING_STD",
    "LoadClip",
    "LoadClipd",
    "NormalizeClip",
    "NormalizeClipd",
    "RandAugmentViews",
    "RandAugmentViewsd",
    "RandColorJitterClip",
    "RandColorJitterClipd",
    "RandFlipClip",
    "RandFlipClipd",
    "RandGaussianBlurClip",
    "RandGaussianBlurClipd",
    "RandGrayscaleClip",
    "RandGrayscaleClipd",
    "RandLoadViews",
    "RandLoadViewsd",
    "RandResizedCropClip",
    "RandResizedCropClipd",
    "RandSolarizeClip",
    "RandSolarizeClipd",
    "ResizeClip",
    "ResizeClipd",
    "View",
    "ViewPlan",
]
