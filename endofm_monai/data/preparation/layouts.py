# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

__all__ = ["check_layout"]

# What a folder holds that no other dataset's folder does, as patterns that must all match; several for several forms.
_SIGNATURES: dict[str, list[tuple[str, ...]]] = {
    "CVC-ClinicDB": [("Original/*.*", "Ground Truth/*.*")],
    "LDPolypVideo": [
        ("TrainValid/Images/*", "TrainValid/Annotations/*"),
        ("Test/Images/*", "Test/Annotations/*"),
        ("videos with* polyps/*",),
    ],
    "PolypDiag": [("videos/*", "splits/train.txt", "splits/val.txt")],
    "KUMC": [("train2019/Image/*", "train2019/Annotation/*"), ("val2019/Image/*", "val2019/Annotation/*")],
    "Kvasir-SEG": [("images/*.*", "masks/*.*", "kavsir_bboxes.json")],
    "SUN-SEG": [("TrainDataset/Frame/*", "TrainDataset/GT/*"), ("TestEasyDataset/*",), ("SUN-Negative/*",)],
    "HyperKvasir": [("labeled-videos/*",), ("unlabeled-videos/*",), ("labeled-images/*",), ("unlabeled-images/*",)],
    "Kvasir-Capsule": [("*labelled_videos/*",), ("*kvasir-capsule*videos*/*",), ("labelled_images/*",)],
    "CholecT45": [("data/VID*/*", "triplet/VID*.txt")],
    "PolypGen": [("data_C1/images_C1/*",), ("sequenceData/positive/*",), ("sequenceData/negativeOnly/*",)],
    "Colonoscopic": [("*[Aa]denoma*/**/*.*", "*[Hh]yperplas*/**/*.*"), ("**/*[Aa]denoma*.*", "**/*[Hh]yperplas*.*")],
}


def check_layout(name: str, source: str) -> Path:
    """Check that a folder looks like a dataset's.

    Args:
        name: the dataset.
        source: the folder with its files; or one that holds nothing but this folder.

    Returns:
        the folder in which the dataset's layout begins.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it does not look like the dataset's: the message says what is missing, and which dataset's it
            looks like.
    """
    root = Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: is not an existing folder")
    for folder in [root, *_only_folder(root)]:
        if _looks_like(name, folder):
            return folder
    missing = min(([pattern for pattern in form if not any(root.glob(pattern))] for form in _SIGNATURES[name]), key=len)
    others = [other for other in _SIGNATURES if _looks_like(other, root)]
    guess = f"; it looks like {' or '.join(others)}" if others else ""
    raise ValueError(f"{root}: is not {name} as its card describes it, {' and '.join(missing)} missing{guess}")


def _looks_like(name: str, folder: Path) -> bool:
    return any(all(any(folder.glob(pattern)) for pattern in patterns) for patterns in _SIGNATURES[name])


def _only_folder(root: Path) -> list[Path]:
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return folders if len(folders) == 1 else []
