# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.examples import get_path

from endofm_monai.data import ClipReader, ClipReadError, DicomReader, FramesReader, NiftiReader, VideoReader, open_clip


@pytest.fixture
def clips(tmp_path: Path, write_video: Any) -> dict[str, Path]:
    """One clip of each kind."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    (tmp_path / "folder.mp4").mkdir()
    Image.fromarray(pixels).save(tmp_path / "folder.mp4" / "1.png")
    Image.fromarray(pixels).save(tmp_path / "image.PNG", format="PNG")
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), tmp_path / "volume.nii.gz")
    (tmp_path / "IM0001").write_bytes(Path(get_path("rgb_color")).read_bytes())
    (tmp_path / "cine.DCM").write_bytes(Path(get_path("rgb_color")).read_bytes())
    write_video(tmp_path / "video.mp4", frames=2).rename(tmp_path / "video")
    write_video(tmp_path / "video.mkv", frames=2)
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("folder.mp4", FramesReader),
        ("image.PNG", FramesReader),
        ("volume.nii.gz", NiftiReader),
        ("IM0001", DicomReader),
        ("cine.DCM", DicomReader),
        ("video", VideoReader),
        ("video.mkv", VideoReader),
    ],
)
@pytest.mark.parametrize("spell", [str, Path])
def test_reader_is_chosen_by_what_the_source_is(
    clips: dict[str, Path], name: str, kind: type[ClipReader], spell: Any
) -> None:
    with open_clip(spell(clips[name])) as reader:
        assert type(reader) is kind
        info = reader.probe()
        assert reader.read([info.frames - 1]).shape == (3, 1, info.height, info.width)


def test_list_of_images_and_options(clips: dict[str, Path]) -> None:
    info = open_clip([clips["image.PNG"]] * 3, fps=10).probe()
    assert (info.frames, info.fps) == (3, 10)
    with open_clip(clips["video.mkv"], fps=10, threads=2) as reader:
        assert reader.probe().fps == 25


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(ClipReadError, match=f"^{tmp_path}/none.mp4: does not exist$"):
        open_clip(tmp_path / "none.mp4")
    with pytest.raises(ClipReadError, match=f"^{tmp_path}: holds no frame images$"):
        open_clip(tmp_path)
