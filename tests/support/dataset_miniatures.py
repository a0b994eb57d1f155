# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Miniatures of the datasets' published layouts, with the parts of them that are awkward."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
from dataset_files import write_clip, write_image, write_mask
from pydicom.uid import ExplicitVRLittleEndian, VideoEndoscopicImageStorage, generate_uid


def miniature(name: str, root: Path) -> dict[str, int]:
    """Build the published layout of a dataset in a folder; the expected totals come with it."""
    return globals()[name](root)


def cvc_clinicdb(root: Path) -> dict[str, int]:
    for number in range(1, 613):  # 1-based, of mixed suffixes; one mask is missing
        suffix = "png" if number % 2 else "tif"
        write_image(root / "Original" / f"{number}.{suffix}", image=np.full((16, 16, 3), number % 256, np.uint8))
        if number != 612:
            write_mask(root / "Ground Truth" / f"{number}.tif", (2, 4, 10, 14), (16, 16))
    return {"videos": 28, "clips": 28, "frames": 612 - 21}


def ldpolypvideo(root: Path) -> dict[str, int]:
    for part, video, frames in (("TrainValid", "1", 12), ("TrainValid", "10", 3), ("Test", "2", 4)):
        for frame in range(1, frames + 1):
            write_image(root / part / "Images" / video / f"{frame}.jpg", int(video), frame)
            boxes = [] if frame == 1 else ["10 8 30 24"] if frame > 2 else ["10 8 30 24", "1 1 5 5"]
            annotation = root / part / "Annotations" / video / f"{frame}.txt"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text("\n".join([str(len(boxes)), *boxes, ""]))
    (root / "TrainValid" / "Annotations" / "10" / "2.txt").unlink()
    (root / "Test" / "Annotations" / "2" / "99.txt").write_text("0\n")
    return {"videos": 2, "clips": 2, "frames": 16}


def polypdiag(root: Path) -> dict[str, int]:
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for number in range(1, 13):
        name = f"{'Polyp video' if number % 2 else 'normal'} {number}.mp4"
        write_clip(root / "videos" / name, number, 9)
        lists["train" if number <= 10 else "val"].append(f"{name},{number % 2}")
    (root / "splits").mkdir()
    for part, lines in lists.items():
        (root / "splits" / f"{part}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    return {"videos": 12, "clips": 12, "frames": 108}


def kumc(root: Path) -> dict[str, int]:
    names = {"train2019": "Adenomatous", "val2019": "hyperplastic", "test2019": "AD"}
    for part, name in names.items():
        for frame in (1, 2, 10, 11):
            write_image(root / part / "Image" / "3" / f"{frame}.jpg", len(part), frame)
            bottom = 8 if frame == 11 else 24.5 if frame == 10 else 24
            box = f"<bndbox><xmin>-2</xmin><ymin>8</ymin><xmax>70</xmax><ymax>{bottom}</ymax></bndbox>"
            found = f"<object><name>{name}</name>{box}</object>" if frame > 1 else ""
            path = root / part / "Annotation" / "3" / f"{frame}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = "<size><width>64</width><height>48</height></size>"
            path.write_text(f"<annotation>{size}{found}</annotation>")
    (root / "val2019" / "Annotation" / "3" / "12.xml").write_text("<annotation></annotation>")
    return {"videos": 3, "clips": 3, "frames": 12}


def kvasir_seg(root: Path) -> dict[str, int]:
    boxes = {}
    for number in range(30):
        write_image(root / "images" / f"cju{number}.jpg", number)
        write_mask(root / "masks" / f"cju{number}.jpg")
        box = {"label": "polyp", "xmin": 9, "ymin": 7, "xmax": 30, "ymax": 24}
        boxes[f"cju{number}"] = {"height": 48, "width": 64, "bbox": [box]}
    (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    return {"videos": 30, "clips": 30, "frames": 30}


def sun_seg(root: Path) -> dict[str, int]:
    for folder, case in (
        ("TrainDataset", "case1_1"),
        ("TrainDataset", "case12_3"),
        ("TestEasyDataset/Seen", "case1_2"),
        ("TestHardDataset/Unseen", "case40_1"),
    ):
        for frame in (1, 2, 10):
            name = f"case_M_2018_a2_ayy_image{frame}"
            write_image(root / folder / "Frame" / case / f"{name}.jpg", len(case), frame)
            write_mask(root / folder / "GT" / case / f"{name}.png", None if frame == 10 else (10, 8, 30, 24))
    return {"videos": 4, "clips": 4, "frames": 12}


def colonoscopic(root: Path) -> dict[str, int]:
    lesions = (
        "Adenoma/adenoma_01",
        "Hyperplastic/hyperplastic_01",
        "hyperplasic lesions/2",
        "Serrated/serrated_01",
    )
    for number, lesion in enumerate(lesions):
        write_clip(root / lesion / "videos" / "NBI.mp4", number, 330 if number == 0 else 20)
    return {"videos": 4, "clips": 5, "frames": 390}


def hyperkvasir(root: Path) -> dict[str, int]:
    write_clip(root / "labeled-videos/lower-gi-tract/pathological-findings/Polyps/a.avi", 1)
    write_clip(root / "labeled-videos/upper-gi-tract/anatomical-landmarks/z-line/b.avi", 2)
    write_clip(root / "unlabeled-videos/c.avi", 3)
    write_image(root / "unlabeled-images/images" / "d.jpg", 4)
    return {"videos": 3, "clips": 3, "frames": 60}


def kvasir_capsule(root: Path) -> dict[str, int]:
    write_clip(root / "labelled_videos" / "04a78ef00c5245e0.mp4", 1)
    write_clip(root / "unlabelled_videos" / "055bbbec392b4f3a.mp4", 2)
    return {"videos": 2, "clips": 2, "frames": 40}


def cholect45(root: Path) -> dict[str, int]:
    for video in ("VID01", "VID02"):
        for frame in range(5):
            write_image(root / "data" / video / f"{frame:06d}.png", int(video[-1]), frame)
        for kind, count in (("triplet", 100), ("instrument", 6), ("verb", 10), ("target", 15)):
            rows = [",".join(map(str, [frame, *(int(label == frame) for label in range(count))])) for frame in range(5)]
            (root / kind).mkdir(exist_ok=True)
            (root / kind / f"{video}.txt").write_text("\n".join(rows))
    (root / "verb" / "VID02.txt").unlink()
    return {"videos": 1, "clips": 1, "frames": 5}


def polypgen(root: Path) -> dict[str, int]:
    for center in (1, 2, 6):
        write_image(root / f"data_C{center}" / f"images_C{center}" / "a b.jpg", center)
        write_mask(root / f"data_C{center}" / f"masks_C{center}" / "a b_mask.jpg")
    write_image(root / "data_C3/images_C3" / "C3_EndoCV2021_00489_.jpg", 3)
    write_mask(root / "data_C3/masks_C3" / "C3_EndoCV2021_00489_mask.jpg")
    for frame in (1, 2, 10):
        write_image(root / "sequenceData/positive/seq1/images_seq1" / f"C4_{frame}.jpg", 9, frame)
        write_mask(root / "sequenceData/positive/seq1/masks_seq1" / f"C4_{frame}_mask.jpg")
    for frame in (1, 2):
        write_image(root / "sequenceData/negativeOnly/seq1_neg" / f"{frame}.jpg", 8, frame)
    return {"videos": 5, "clips": 5, "frames": 7}


def own_videos(root: Path) -> dict[str, int]:
    write_clip(root / "Doe_Jane_1960.mp4", 1, 40, title="Doe, Jane")
    write_clip(root / "ward 3" / "Doe_Jane_1960.mp4", 2, 20)
    for frame in (1, 2, 10):
        write_image(root / "Roe Richard" / f"{frame}.png", 3, frame)
    write_dicom(root / "ward 3" / "IM_0001", np.random.default_rng(0).integers(40, 216, (6, 48, 64, 3), dtype=np.uint8))
    (root / "broken.mp4").write_bytes(b"no video")
    return {"videos": 4, "clips": 4, "frames": 69}


def write_dicom(path: Path, frames: np.ndarray) -> None:
    """Write frames ``(T, H, W, 3)`` as a DICOM file with a patient's name."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = VideoEndoscopicImageStorage, generate_uid()
    dataset.PatientName = "Doe^Jane"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = frames.tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
