# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import EnsureChannelFirst, LoadImage
from numbered_videos import write_video
from PIL import Image
from pydicom import dcmread, uid
from pydicom.examples import get_path

from endofm_monai.data import (
    ClipReader,
    ClipReadError,
    DicomReader,
    EndoFMClipReader,
    FramesReader,
    NiftiReader,
    VideoReader,
    find_clips,
    open_clip,
)
from endofm_monai.data.readers.opener import list_files
from tests.support.dicom import write_dicom
from tests.support.pictures import write_pages


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, Path]:
    """One clip of each kind."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    (tmp_path / "folder.mp4").mkdir()
    Image.fromarray(pixels).save(tmp_path / "folder.mp4" / "1.png")
    Image.fromarray(pixels).save(tmp_path / "image.PNG", format="PNG")
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), tmp_path / "volume.nii.gz")
    (tmp_path / "IM0001").write_bytes(Path(get_path("rgb_color")).read_bytes())
    for name in ("1.2.840.264", "1.2.840.265"):
        (tmp_path / name).write_bytes(Path(get_path("rgb_color")).read_bytes())
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
        ("1.2.840.264", DicomReader),
        ("1.2.840.265", DicomReader),
        ("cine.DCM", DicomReader),
        ("video", VideoReader),
        ("video.mkv", VideoReader),
    ],
)
@pytest.mark.parametrize("spell", [str, Path, lambda path: [path]])
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


@pytest.fixture
def video(tmp_path: Path) -> Path:
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


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_clips_below_a_folder(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("b/case10.mp4", "b/case2.MKV", "b/thumbnail.png", "b/notes.txt"),
        *("frames/1.png", "frames/2.png", "frames/more/video.avi"),
        *("scan.nii.gz", "scan.nii", "cine.dcm", ".hidden.mp4", ".cache/video.mp4", "empty/readme.md"),
    )
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips(tmp_path)]
    expected = ["b/case2.MKV", "b/case10.mp4", "cine.dcm", "frames", "frames/more/video.avi", "scan.nii", "scan.nii.gz"]
    assert found == expected


def test_files_below_a_folder_without_hidden_ones(tmp_path: Path) -> None:
    make(tmp_path, "b/2.png", "b/.thumbs/1.png", ".ipynb_checkpoints/3.png", "a.png", ".4.png")
    make(tmp_path, "$RECYCLE.BIN/$R1.png", "#recycle/1.png", "b/@eaDir/2.png/SYNO_THUMB.png", "__MACOSX/b/2.png")
    make(tmp_path, "#snapshot/GMT-2024.01.02/a.png", "~snapshot/daily/a.png", "@Recycle/1.png", "b/THMBNL/C0001T01.png")
    assert find_clips(tmp_path) == [tmp_path, tmp_path / "b"]
    assert list_files(tmp_path, (".png",)) == [tmp_path / "a.png", tmp_path / "b" / "2.png"]


@pytest.mark.parametrize("find", [find_clips, lambda folder: list_files(folder, (".mp4",))])
def test_a_folder_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Any
) -> None:
    make(tmp_path, "a/1.mp4", "b/2.mp4")
    scandir = os.scandir

    def locked(folder: str) -> Any:  # also for who may read everything
        if Path(folder) == tmp_path / "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="Permission denied: .*b"):
        find(tmp_path)


def test_dicom_files_without_a_suffix(tmp_path: Path) -> None:
    make(tmp_path, "notes", "1.2.3.txt", "1.2.840.10008", "study/frames/1.png")
    for name in ("IM_0001", "study/1.2.840.113619.7", "study/DICOMDIR", "study/.hidden", "report.pdf"):
        shutil.copy(get_path("rgb_color"), tmp_path / name)
    (tmp_path / "study" / "broken").symlink_to(tmp_path / "absent")
    found = [path.relative_to(tmp_path).as_posix() for path in find_clips(tmp_path)]
    assert found == ["IM_0001", "study/1.2.840.113619.7", "study/frames"]


def test_dicom_files_that_hold_no_images_are_no_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classes = uid.VideoEndoscopicImageStorage, uid.ComprehensiveSRStorage, uid.EncapsulatedPDFStorage
    classes += uid.GrayscaleSoftcopyPresentationStateStorage, uid.MediaStorageDirectoryStorage
    for number, each in enumerate(classes):
        header = dcmread(write_dicom(tmp_path / "clip.dcm", bytes(5 * 16 * 24)))
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = each
        for name in (f"{number}.dcm", f"IM{number}"):
            header.save_as(tmp_path / name, enforce_file_format=True)
    (tmp_path / "clip.dcm").write_bytes(b"damaged")
    assert [path.name for path in find_clips(tmp_path)] == ["0.dcm", "clip.dcm", "IM0"]
    assert caplog.messages == [f"{tmp_path}: 8 files are not used: 4 .dcm, 4 without suffix"]


def test_links_do_not_lead_in_circles_and_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a/video.mp4")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert find_clips(tmp_path) == [tmp_path / "a" / "video.mp4"]
    assert caplog.messages == [f"{tmp_path / 'a'}: 1 links to folders are not followed: again"]


def test_recorders_suffixes_and_what_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = ["00000.MTS", "00001.m2ts", "VTS_01_1.VOB", "rec.asf", "rec.mxf", "rec.flv", "rec.OGV", "rec.3gp"]
    videos += ["VR_MOVIE.VRO", "rec.wtv", "rec.rm", "rec.gxf"]
    make(tmp_path, *videos, "thumb1.jpg", "thumb2.JPG", "index.bup", "LICENCE", ".hidden", "a/b.xyz", "c.d/e.xyz")
    assert {path.name for path in find_clips(tmp_path)} == set(videos)
    assert caplog.messages == [f"{tmp_path}: 6 files are not used: 2 .jpg, 2 .xyz, 1 .bup, 1 without suffix"]
    caplog.clear()
    assert len(list_files(tmp_path, (".jpg",))) == 2
    assert caplog.messages[0].startswith(f"{tmp_path}: 16 files are not used: 2 .xyz, 1 .")
    caplog.clear()
    make(tmp_path / "frames", "1.png", "2.png")
    assert find_clips(tmp_path / "frames") == [tmp_path / "frames"]
    assert not caplog.messages


def test_stacks_are_clips_of_their_own(tmp_path: Path) -> None:
    pages = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(60, 1).reshape(3, 4, 5, 3)
    for name, count in (("a/1.tif", 3), ("a/2.webp", 3), ("b/1.png", 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_pages(tmp_path / name, pages[:count])
    assert find_clips(tmp_path) == [tmp_path / "a" / "1.tif", tmp_path / "a" / "2.webp", tmp_path / "b"]
