# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.data.box_datalist import key_frames, load_box_datalist
from endofm_monai.data.chunks import chunk_clips, chunk_frames
from endofm_monai.data.class_labels import class_weights, load_labeled_clips
from endofm_monai.data.clip_dataset import ClipDataset, ClipKey
from endofm_monai.data.clip_files import find_clips
from endofm_monai.data.clip_reader import ClipInfo, ClipReader, ClipReadError
from endofm_monai.data.coco import datalist_from_coco
from endofm_monai.data.collate import collate_clips, collate_views, split_clips
from endofm_monai.data.datalist import load_datalist
from endofm_monai.data.dicom_reader import DicomReader, open_dicom
from endofm_monai.data.epoch_sampler import EpochSampler
from endofm_monai.data.feature_cache import FeatureCache
from endofm_monai.data.frame_indices import linspace_indices
from endofm_monai.data.frame_range import FrameRangeReader, join_frames, split_frames
from endofm_monai.data.frames_reader import FramesReader
from endofm_monai.data.monai_reader import EndoFMClipReader, clip_metadata, register_readers
from endofm_monai.data.naming import clip_names, name_clips, name_videos
from endofm_monai.data.nifti_reader import NiftiReader
from endofm_monai.data.opener import open_clip
from endofm_monai.data.video_list import list_videos, result_path
from endofm_monai.data.video_reader import VideoReader
from endofm_monai.data.video_windows import VideoWindows, cover_videos, sample_videos
from endofm_monai.data.window_plan import WindowPlan
from endofm_monai.data.worker import survive_first_sigterm

__all__ = [
    "ClipDataset",
    "ClipInfo",
    "ClipKey",
    "ClipReadError",
    "ClipReader",
    "DicomReader",
    "EndoFMClipReader",
    "EpochSampler",
    "FeatureCache",
    "FrameRangeReader",
    "FramesReader",
    "NiftiReader",
    "VideoReader",
    "VideoWindows",
    "WindowPlan",
    "chunk_clips",
    "chunk_frames",
    "class_weights",
    "clip_metadata",
    "clip_names",
    "collate_clips",
    "collate_views",
    "cover_videos",
    "datalist_from_coco",
    "find_clips",
    "join_frames",
    "key_frames",
    "linspace_indices",
    "list_videos",
    "load_box_datalist",
    "load_datalist",
    "load_labeled_clips",
    "name_clips",
    "name_videos",
    "open_clip",
    "open_dicom",
    "register_readers",
    "result_path",
    "sample_videos",
    "split_clips",
    "split_frames",
    "survive_first_sigterm",
]
