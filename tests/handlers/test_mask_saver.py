# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.inferers import SimpleInferer
from monai.transforms import Compose, CopyItemsd, SelectItemsd
from PIL import Image

from endofm_monai.data import ClipDataset, chunk_clips, collate_clips, open_clip
from endofm_monai.engines import ClipEvaluator
from endofm_monai.formats import MASK_WRITERS
from endofm_monai.formats.video import write_video
from endofm_monai.handlers import MaskSaver
from endofm_monai.transforms import LoadClipd, MaskFromLogitsd, NormalizeClipd

HEIGHT, WIDTH, FRAMES = 32, 48, 40


def frames() -> np.ndarray:
    """A bright square that moves to the right, one pixel a frame."""
    made = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for index in range(FRAMES):
        made[index, 8:16, index : index + 8] = 255
    return made


class BrightnessNetwork(torch.nn.Module):
    """Logits that say foreground where the frame is bright."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return torch.cat([-clip[:, :1], clip[:, :1]], dim=1)


def segment(folder: Path, output: Path, clips: list[Any], **options: Any) -> None:
    dataset = ClipDataset(
        chunk_clips([{"image": clip} for clip in clips], chunk=16, window=8, stride=4),
        Compose(
            [
                LoadClipd("image"),
                CopyItemsd("image", names="frames"),
                NormalizeClipd("image"),
                SelectItemsd(["image", "frames", "index"]),
            ]
        ),
    )
    ClipEvaluator(
        device="cpu",
        val_data_loader=DataLoader(dataset, batch_size=1, collate_fn=collate_clips),
        network=BrightnessNetwork(),
        inferer=SimpleInferer(),
        postprocessing=MaskFromLogitsd("pred", "frames"),
        val_handlers=[MaskSaver(output, dataset_dir=folder, **options)],
    ).run()


@pytest.fixture
def video(tmp_path) -> Path:
    write_video(tmp_path / "data" / "sub" / "clip.mp4", frames(), 25, crf=0)
    return tmp_path / "data" / "sub" / "clip.mp4"


def test_video_gives_masks_in_all_formats(tmp_path, video):
    segment(tmp_path / "data", tmp_path / "out", [str(video)])
    folder = tmp_path / "out" / "sub" / "clip"
    assert {path.name for path in folder.iterdir()} == {"masks", "masks.nii.gz", "masks.json", "overlay.mp4"}
    expected = frames()[..., 0] > 128

    files = sorted((folder / "masks").iterdir())
    assert [path.name for path in files] == [f"{index:05d}.png" for index in range(FRAMES)]
    read = np.stack([np.asarray(Image.open(path)) for path in files])
    assert set(np.unique(read)) == {0, 255}
    assert ((read > 0) == expected).mean() > 0.998

    volume = nibabel.load(folder / "masks.nii.gz")
    assert volume.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(volume.dataobj).transpose(2, 1, 0), read > 0)
    image = itk.imread(str(folder / "masks.nii.gz"))
    np.testing.assert_array_equal(itk.array_from_image(image), (read > 0).astype(np.uint8))
    np.testing.assert_array_equal(itk.array_from_matrix(image.GetDirection()), np.eye(3))

    coco = json.loads((folder / "masks.json").read_text())
    assert [entry["file_name"] for entry in coco["images"]] == [path.stem for path in files]
    for annotation in coco["annotations"]:
        runs = annotation["segmentation"]["counts"]
        flat = np.repeat(np.arange(len(runs)) % 2, runs)
        mask = flat.reshape(annotation["segmentation"]["size"], order="F")
        np.testing.assert_array_equal(mask, read[annotation["image_id"] - 1] > 0)
        assert annotation["area"] == mask.sum()
        x, y, width, height = annotation["bbox"]
        assert mask[y : y + height, x : x + width].sum() == mask.sum()

    with open_clip(folder / "overlay.mp4") as reader:
        assert (reader.probe().frames, reader.probe().fps) == (FRAMES, 25)


def test_frames_keep_their_names_and_still_images_are_clips(tmp_path):
    folder = tmp_path / "data" / "case"
    folder.mkdir(parents=True)
    for index in range(20):
        Image.fromarray(frames()[index]).save(folder / f"f{index}.png")
    segment(tmp_path / "data", tmp_path / "out", [str(folder), str(folder / "f3.png")], formats=["png"])
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {f"case/f0-f19/masks/f{index}.png" for index in range(20)} | {"case/f3/masks/f3.png"}


def test_clip_with_a_broken_chunk_leaves_no_half_file_and_the_next_goes_on(tmp_path, video, caplog):
    folder = tmp_path / "data" / "case"
    folder.mkdir()
    for index in range(30):
        Image.fromarray(frames()[index]).save(folder / f"f{index}.png")
    (folder / "f25.png").write_bytes(b"damaged")
    segment(tmp_path / "data", tmp_path / "out", [str(folder), str(video)])
    assert not [*(tmp_path / "out" / "case" / "f0-f29").iterdir()]
    assert "case/f0-f29: only the first" in caplog.text
    assert (tmp_path / "out" / "sub" / "clip" / "masks.nii.gz").exists()


def test_no_foreground_is_written_too(tmp_path):
    write_video(tmp_path / "dark.mp4", np.zeros((3, 16, 16, 3), np.uint8), 25)
    segment(tmp_path, tmp_path / "out", [str(tmp_path / "dark.mp4")])
    coco = json.loads((tmp_path / "out" / "dark" / "masks.json").read_text())
    assert (len(coco["images"]), coco["annotations"]) == (3, [])
    assert np.asarray(nibabel.load(tmp_path / "out" / "dark" / "masks.nii.gz").dataobj).sum() == 0


def test_unknown_format_is_named():
    with pytest.raises(ValueError, match=r"png, nifti, coco, overlay, but got dicom"):
        MaskSaver("out", formats=["png", "dicom"])
    assert set(MASK_WRITERS) == {"png", "nifti", "coco", "overlay"}
