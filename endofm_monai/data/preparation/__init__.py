# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.data.preparation.boxes import FrameBoxes, read_boxed_video
from endofm_monai.data.preparation.command import run_from_command_line
from endofm_monai.data.preparation.cutting import clip_ranges
from endofm_monai.data.preparation.files import clean_name, images_by_stem, name_share, subfolders
from endofm_monai.data.preparation.layouts import check_layout
from endofm_monai.data.preparation.masks import mask_boxes, read_mask
from endofm_monai.data.preparation.parallel import run_parallel
from endofm_monai.data.preparation.prepare import prepare_dataset
from endofm_monai.data.preparation.seekability import choose_mode
from endofm_monai.data.preparation.settings import PreparationSettings
from endofm_monai.data.preparation.source_video import SourceDataset, SourceVideo, read_videos

__all__ = [
    "FrameBoxes",
    "PreparationSettings",
    "SourceDataset",
    "SourceVideo",
    "check_layout",
    "choose_mode",
    "clean_name",
    "clip_ranges",
    "images_by_stem",
    "mask_boxes",
    "name_share",
    "prepare_dataset",
    "read_boxed_video",
    "read_mask",
    "read_videos",
    "run_from_command_line",
    "run_parallel",
    "subfolders",
]
