# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from PIL import Image

from endofm_monai.data import (
    ClipDataset,
    ClipReadError,
    RandomWindow,
    SupportSampler,
    UniformFrames,
    WindowPlan,
    key_frames,
)
from endofm_monai.transforms import LoadBoxesd, LoadClipd, LoadMasksd

FRAMES = 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames whose pixels are their number."""
    folder = tmp_path_factory.mktemp("clip")
    for number in range(FRAMES):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(folder / f"{number}.png")
    return folder


def load(source: Any, sampler: Any = None, **options: Any) -> MetaTensor:
    return LoadClipd("image", sampler, **options)({"image": source})["image"]


def numbers(frames: torch.Tensor) -> list[int]:
    return frames[0, :, 0, 0].tolist()


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (None, list(range(FRAMES))),
        (UniformFrames(4), [0, 13, 26, 39]),
        (UniformFrames(1), [0]),
    ],
)
def test_frames_and_metadata(clip: Path, sampler: Any, expected: list[int]) -> None:
    frames = load(clip, sampler, fps=20)
    assert isinstance(frames, MetaTensor)
    assert frames.dtype == torch.uint8
    assert frames.shape == (3, len(expected), 4, 6)
    assert frames[1, :, 2, 3].tolist() == expected
    assert frames.meta["frame_indices"].tolist() == expected
    assert frames.meta["filename_or_obj"] == str(clip)
    assert frames.meta["spatial_shape"].tolist() == [len(expected), 4, 6]
    assert (frames.meta["frames"], frames.meta["fps"]) == (FRAMES, 20)


def test_dictionary_items_collate(clip: Path) -> None:
    transform = LoadClipd("image", UniformFrames(2))
    item = {"image": clip, "label": 1}
    batch = list_data_collate([transform(item), transform(item)])
    assert item["image"] == clip
    assert batch["image"].shape == (2, 3, 2, 4, 6)
    assert batch["label"].tolist() == [1, 1]
    with pytest.raises(KeyError, match="image"):
        transform({"label": 1})
    assert LoadClipd("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}


def test_unreadable_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipReadError, match=f"^{tmp_path}/none.mp4: does not exist$"):
        load(tmp_path / "none.mp4")


def test_random_windows_reach_the_whole_clip(clip):
    transform = LoadClipd("image", RandomWindow(num_frames=4, sampling_rate=2)).set_random_state(seed=0)
    seen = [numbers(transform({"image": clip})["image"]) for _ in range(200)]
    assert all([frame - frames[0] for frame in frames] == [0, 2, 4, 7] for frames in seen)
    assert {frames[0] for frames in seen} == set(range(FRAMES - 8 + 1))


def test_random_window_of_a_short_clip_is_all_of_it(clip):
    assert numbers(load(clip, RandomWindow(4, 32))) == [0, 13, 26, 39]


def test_same_seed_same_window_also_at_several_keys_and_in_a_worker(clip):
    transform = pickle.loads(pickle.dumps(LoadClipd(["image", "again"], RandomWindow(2, 1))))
    runs = [transform.set_random_state(seed=seed)({"image": clip, "again": clip}) for seed in (*range(10), *range(10))]
    drawn = [tuple(numbers(run["image"])) for run in runs]
    assert drawn == [tuple(numbers(run["again"])) for run in runs]
    assert drawn[:10] == drawn[10:]
    assert len(set(drawn)) > 1


def test_windows_are_those_that_the_item_names(clip):
    transform = LoadClipd("image", WindowPlan(num_frames=4, sampling_rate=2))
    windows = [transform({"image": clip, "window": window, "num_windows": 5}) for window in range(5)]
    assert [numbers(item["image"]) for item in windows] == [[s, s + 2, s + 4, s + 7] for s in (0, 8, 16, 24, 32)]
    assert windows[1]["image"].meta["frame_indices"].tolist() == [8, 10, 12, 15]
    assert numbers(transform({"image": clip})["image"]) == [0, 2, 4, 7]


@pytest.fixture
def video(clip: Path) -> dict:
    """Frames of one color each, with as many boxes in a frame as its number modulo 3."""
    boxes = [[[1, 2, 6, 4]] * (frame % 3) for frame in range(FRAMES)]
    return {"image": str(clip), "box": boxes, "box_label": [[1] * len(box) for box in boxes], "video": "v"}


def test_key_frames_come_first_and_each_frame_has_its_boxes(video):
    transform = LoadClipd("image", SupportSampler(num_supports=3, window=4)).set_random_state(seed=0)
    for item in key_frames([video], 13):
        loaded = LoadBoxesd("box")(transform(item))
        frames = loaded["image"].meta["frame_indices"].tolist()
        assert numbers(loaded["image"]) == frames
        assert frames[0] == item["frame_index"]
        assert [len(box) for box in loaded["box"]] == [frame % 3 for frame in frames]
        assert [len(label) for label in loaded["box_label"]] == [frame % 3 for frame in frames]
        assert all(box.dtype == torch.float32 and box.shape[1:] == (4,) for box in loaded["box"])


def test_key_frames_are_spread_over_each_video(video):
    assert [item["frame_index"] for item in key_frames([video, video], 15)] == [0, 15, 30, 0, 15, 30]


def test_other_number_of_frames_than_annotations_is_named(video):
    video["box"].append([])
    with pytest.raises(ClipReadError, match="has 40 frames, but 41 lists of boxes are listed"):
        LoadBoxesd("box")(LoadClipd("image")(video))


def test_boxes_of_frames_of_another_size_are_named(video):
    video["box"] = [[[1000, 500, 1100, 600]] * len(box) for box in video["box"]]
    with pytest.raises(
        ClipReadError, match=r"less than half of its boxes, as \[1000, 500, 1100, 600\], is in its frames of \d+x"
    ):
        LoadBoxesd("box")(LoadClipd("image")(video))
    video["box"] = [[[-5, 2, 1, 4]] * len(box) for box in video["box"]]  # a polyp that leaves the frame
    LoadBoxesd("box")(LoadClipd("image")(video))


@pytest.fixture
def folder(tmp_path):
    """Four frames and masks; mask t is a column at t."""
    for index in range(4):
        Image.new("RGB", (12, 10), (index, 0, 0)).save(tmp_path / f"frame{index}.png")
        mask = np.zeros((10, 12), np.uint8)
        mask[:, index] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{index}.png")
    return tmp_path


def paths(folder, kind: str, count: int = 4) -> list:
    return [folder / f"{kind}{index}.png" for index in range(count)]


def save(folder, array: np.ndarray) -> None:
    Image.fromarray(array).save(folder / "mask2.png")


def load_masks(masks, clip: torch.Tensor) -> torch.Tensor:
    return LoadMasksd("mask")({"mask": masks, "image": clip})["label"]


def masks_of(folder) -> torch.Tensor:
    return load_masks(paths(folder, "mask"), load(paths(folder, "frame")))


def test_reads_the_masks_of_the_frames_that_were_read(folder):
    frames = load(paths(folder, "frame"), UniformFrames(2))  # the first and the last
    masks = load_masks(paths(folder, "mask"), frames)
    assert masks.shape == (1, 2, 10, 12)
    assert masks.dtype == torch.uint8
    assert [masks[0, t].any(0).nonzero().flatten().tolist() for t in range(2)] == [[0], [3]]


def test_masks_in_a_folder_and_of_a_single_image(folder, tmp_path_factory):
    expected = masks_of(folder)
    masks = tmp_path_factory.mktemp("masks")
    for path in paths(folder, "mask"):
        path.rename(masks / path.name)
    assert torch.equal(load_masks(masks, load(paths(folder, "frame"))), expected)
    assert torch.equal(load_masks(masks / "mask1.png", load(folder / "frame1.png")), expected[:, 1:2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: save(folder, np.full((10, 12), 128, np.uint8)), r"mask2\.png.*but holds 128"),
        (lambda folder: save(folder, np.eye(10, 12, dtype=np.uint8) * 254), r"mask2\.png.*but holds 0, 254"),
        (lambda folder: save(folder, np.zeros((10, 13), np.uint8)), r"mask2\.png.*10x13.*10x12"),
        (lambda folder: (folder / "mask2.png").unlink(), r"mask2\.png.*not a readable mask"),
    ],
)
def test_a_bad_mask_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ClipReadError, match=message):
        masks_of(folder)


@pytest.mark.parametrize("count", [3, 5])
def test_every_frame_needs_one_mask(folder, count):
    frames = load(paths(folder, "frame"))
    with pytest.raises(ClipReadError, match=rf"frame0\.png: has 4 frames, but {count} masks"):
        load_masks(paths(folder, "mask", count), frames)
    with pytest.raises(ClipReadError, match="frame 1 has no mask"):
        load_masks([folder / "mask0.png", None, *paths(folder, "mask")[2:]], frames)


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_masks_of_other_frames_make_a_clip_broken(folder, tmp_path_factory, kind):
    clip, masks = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("masks")
    for number, frame, mask in zip(range(3), "124", "134", strict=True):
        (folder / f"frame{number}.png").rename(clip / f"{frame}.png")
        (folder / f"mask{number}.png").rename(masks / f"{mask}.png")
    item = {"image": str(clip) if kind == "folder" else [clip / f"{name}.png" for name in "124"], "mask": str(masks)}
    broken = ClipDataset([item], lambda d: LoadMasksd("mask")(LoadClipd("image")(d)))[0]["broken"]
    assert broken.startswith(f"{masks}/3.png: is where the mask of {clip}/2.png is expected")
    with pytest.raises(ClipReadError, match=r"3\.png: is where the mask of"):
        load_masks(masks, load(clip))


def test_dataset_reports_a_bad_mask_like_a_bad_clip(folder):
    save(folder, np.full((10, 12), 7, np.uint8))
    item = {"image": paths(folder, "frame"), "mask": paths(folder, "mask"), "label": 1}
    assert "mask2.png" in ClipDataset([item], lambda d: LoadMasksd("mask")(LoadClipd("image")(d)))[0]["broken"]
