# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.preparation.encode import choose_mode
from endofm_monai.preparation.parallel import run_parallel
from endofm_monai.preparation.prepare import prepare_dataset, run_from_command_line
from endofm_monai.preparation.record import clean_name, clip_ranges, images_by_stem, name_share, subfolders
from endofm_monai.preparation.sources import (
    FrameBoxes,
    PreparationSettings,
    SourceDataset,
    SourceVideo,
    check_layout,
    read_boxed_video,
    read_videos,
)

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
    "name_share",
    "prepare_dataset",
    "read_boxed_video",
    "read_videos",
    "run_from_command_line",
    "run_parallel",
    "subfolders",
]
