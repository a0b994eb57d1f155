# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.data.clip_dataset import ClipDataset, ClipKey
from endofm_monai.data.clip_reader import ClipReadError
from endofm_monai.data.collate import collate_clips, collate_views
from endofm_monai.data.epoch_sampler import EpochSampler
from endofm_monai.data.frame_indices import linspace_indices

__all__ = ["ClipDataset", "ClipKey", "ClipReadError", "EpochSampler", "collate_clips", "collate_views", "linspace_indices"]
