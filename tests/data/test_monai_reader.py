# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import EnsureChannelFirst, LoadImage
from monai.transforms.io.array import SUPPORTED_READERS
from PIL import Image

from endofm_monai.data import EndoFMClipReader, VideoReader, register_readers


@pytest.fixture
def video(tmp_path: Path, write_video: Any) -> Path:
    return write_video(tmp_path / "video.mp4", frames=6)


@pytest.mark.parametrize("reader", [None, "EndoFMClipReader", EndoFMClipReader])
def test_load_image_reads_videos(video: Path, reader: Any) -> None:
    clip = LoadImage(reader=reader, dtype=torch.uint8)(video)
    assert clip.equal(VideoReader(video).read(range(6)))
    assert clip.meta["filename_or_obj"] == str(video)
    assert clip.meta["spatial_shape"].tolist() == [6, 64, 96]
    assert clip.meta["frame_indices"].tolist() == [0, 1, 2, 3, 4, 5]
    assert (clip.meta["frames"], clip.meta["fps"], clip.meta["original_channel_dim"]) == (6, 25, 0)
    assert EnsureChannelFirst()(clip).shape == (3, 6, 64, 96)


def test_load_image_reads_frames_when_told_to(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(file)
    for source in (files, tmp_path):
        clip = LoadImage(reader="EndoFMClipReader", fps=12)(source)
        assert clip.shape == (3, 3, 4, 5)
        assert clip[0, :, 0, 0].tolist() == [0, 1, 2]
        assert clip.meta["fps"] == 12


def test_other_files_are_left_to_monai(tmp_path: Path) -> None:
    reader = EndoFMClipReader()
    for name in ("a.mp4", "b.AVI", ["a.mkv", "b.webm"]):
        assert reader.verify_suffix(name)
    for name in ("a.png", "a.dcm", "a.nii.gz", "video.mp4.npy", "table.tsv", ["a.mp4", "a.png"]):
        assert not reader.verify_suffix(name)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "image.png")
    assert LoadImage()(tmp_path / "image.png").shape == (5, 4)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "volume.nii.gz")
    assert LoadImage()(tmp_path / "volume.nii.gz").shape == (4, 5, 6)


def test_registering_twice_changes_nothing() -> None:
    register_readers()
    before = dict(SUPPORTED_READERS)
    register_readers()
    assert before == SUPPORTED_READERS
    assert SUPPORTED_READERS["endofmclipreader"] is EndoFMClipReader
