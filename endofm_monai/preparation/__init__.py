# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.preparation.index import choose_mode, clip_ranges, move_paths, write_lists
from endofm_monai.preparation.prepare import claim_settings, prepare_dataset, run_parallel
from endofm_monai.preparation.sources import SECTIONS, PreparationSettings, SourceDataset, SourceVideo
from endofm_monai.utils import run_from_command_line

__all__ = ["SECTIONS", "PreparationSettings", "SourceDataset", "SourceVideo", "choose_mode", "clip_ranges"]
__all__ += ["claim_settings", "move_paths", "prepare_dataset", "run_from_command_line", "run_parallel", "write_lists"]
