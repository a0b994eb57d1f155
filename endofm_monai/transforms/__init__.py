# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.transforms.affine import RandAffineClip, RandAffineClipd
from endofm_monai.transforms.augment_views import RandAugmentViews, RandAugmentViewsd
from endofm_monai.transforms.blur import RandGaussianBlurClip, RandGaussianBlurClipd
from endofm_monai.transforms.color import (
    RandColorJitterClip,
    RandColorJitterClipd,
    RandGrayscaleClip,
    RandGrayscaleClipd,
)
from endofm_monai.transforms.fit_frame import FitClip, RandFitClip, RandFitClipd
from endofm_monai.transforms.flip import RandFlipClip, RandFlipClipd
from endofm_monai.transforms.load_clip import LoadClip, LoadClipd
from endofm_monai.transforms.load_key_frame import RandLoadKeyFramed
from endofm_monai.transforms.load_masks import LoadMasks, LoadMasksd
from endofm_monai.transforms.load_views import RandLoadViews, RandLoadViewsd
from endofm_monai.transforms.load_window import LoadWindow, LoadWindowd, RandLoadClip, RandLoadClipd
from endofm_monai.transforms.mask_from_logits import MaskFromLogits, MaskFromLogitsd
from endofm_monai.transforms.normalization import (
    PRETRAINING_MEAN,
    PRETRAINING_STD,
    REFERENCE_FINETUNING_MEAN,
    REFERENCE_FINETUNING_STD,
    NormalizeClip,
    NormalizeClipd,
)
from endofm_monai.transforms.per_frame import PerFrame, PerFramed
from endofm_monai.transforms.reference_bgr import ReferenceBGRClip, ReferenceBGRClipd
from endofm_monai.transforms.reference_input import RandReferenceInput, RandReferenceInputd
from endofm_monai.transforms.resize import ResizeClip, ResizeClipd
from endofm_monai.transforms.resized_crop import RandResizedCropClip, RandResizedCropClipd
from endofm_monai.transforms.scale_crop import RandScaleCropClip, RandScaleCropClipd, ScaleCropClip, ScaleCropClipd
from endofm_monai.transforms.select_detections import SelectDetections
from endofm_monai.transforms.solarize import RandSolarizeClip, RandSolarizeClipd
from endofm_monai.transforms.view_plan import View, ViewPlan

__all__ = [
    "PRETRAINING_MEAN",
    "PRETRAINING_STD",
    "REFERENCE_FINETUNING_MEAN",
    "REFERENCE_FINETUNING_STD",
    "FitClip",
    "LoadClip",
    "LoadClipd",
    "LoadMasks",
    "LoadMasksd",
    "LoadWindow",
    "LoadWindowd",
    "MaskFromLogits",
    "MaskFromLogitsd",
    "NormalizeClip",
    "NormalizeClipd",
    "PerFrame",
    "PerFramed",
    "RandAffineClip",
    "RandAffineClipd",
    "RandAugmentViews",
    "RandAugmentViewsd",
    "RandColorJitterClip",
    "RandColorJitterClipd",
    "RandFitClip",
    "RandFitClipd",
    "RandFlipClip",
    "RandFlipClipd",
    "RandGaussianBlurClip",
    "RandGaussianBlurClipd",
    "RandGrayscaleClip",
    "RandGrayscaleClipd",
    "RandLoadClip",
    "RandLoadClipd",
    "RandLoadKeyFramed",
    "RandLoadViews",
    "RandLoadViewsd",
    "RandReferenceInput",
    "RandReferenceInputd",
    "RandResizedCropClip",
    "RandResizedCropClipd",
    "RandScaleCropClip",
    "RandScaleCropClipd",
    "RandSolarizeClip",
    "RandSolarizeClipd",
    "ReferenceBGRClip",
    "ReferenceBGRClipd",
    "ResizeClip",
    "ResizeClipd",
    "ScaleCropClip",
    "ScaleCropClipd",
    "SelectDetections",
    "View",
    "ViewPlan",
]
