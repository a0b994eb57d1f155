# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import runpy
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import av
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from skimage.io import imread

SAMPLE = Path(__file__).parents[2] / "datasets" / "sample"
SETTINGS = {"videos": 6, "frames": 6, "size": (64, 80), "seed": 3}
SPLITS = ("training", "validation", "test")


@pytest.fixture(scope="module")
def sample():
    """The generator's modules, importable as they are for the script itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SAMPLE)
        import generate
        import rendering

        yield {"generate": generate, "rendering": rendering}


@pytest.fixture(scope="module")
def folder(sample, tmp_path_factory):
    """What the command makes."""
    output = tmp_path_factory.mktemp("sample")
    options = [f"--{name}={str(value).strip('()').replace(' ', '')}" for name, value in SETTINGS.items()]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as shown:
        patch.setattr("sys.argv", ["generate.py", "--output", str(output), *options])
        runpy.run_path(str(SAMPLE / "generate.py"), run_name="__main__")
    assert shown.getvalue().strip() == str(output / "datalist.json")
    assert len(list(output.glob("videos/*.mp4"))) == SETTINGS["videos"]
    return output


@pytest.fixture(scope="module")
def datalist(folder):
    return json.loads((folder / "datalist.json").read_text())


@pytest.fixture(scope="module")
def items(datalist):
    return [item for split in SPLITS for item in datalist[split]]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_splits_are_disjoint_by_video_and_balanced_by_class(datalist, items):
    assert len({item["image"] for item in items}) == len(items) == SETTINGS["videos"]
    for split in SPLITS:
        assert np.mean([item["label"] for item in datalist[split]]) == 0.5


@pytest.mark.parametrize(
    ("videos", "sizes"), [(6, (2, 2, 2)), (16, (10, 2, 4)), (40, (26, 4, 10)), (100, (64, 12, 24))]
)
def test_split_sizes(sample, videos, sizes):
    splits = sample["generate"].split_by_video(videos)
    assert tuple(len(splits[split]) for split in SPLITS) == sizes
    assert [index for split in SPLITS for index in splits[split]] == list(range(videos))


def test_monai_reads_the_datalist(folder, datalist):
    for split in SPLITS:
        items = load_decathlon_datalist(str(folder / "datalist.json"), is_segmentation=False, data_list_key=split)
        for item, written in zip(items, datalist[split], strict=True):
            assert item["image"] == str(folder / written["image"])
            assert item["mask"] == [str(folder / path) for path in written["mask"]]
            assert item["label"] == written["label"]


def test_datalist_says_that_the_data_are_synthetic(datalist):
    assert "Synthetic" in datalist["description"]
    assert "Never draw clinical conclusions" in datalist["note"]
    assert datalist["licence"] == "CC0-1.0"


def test_videos_have_the_frames_of_their_masks_and_are_not_constant(folder, items):
    for item in items:
        video = decode(folder / item["image"])
        assert video.shape == (SETTINGS["frames"], *SETTINGS["size"], 3)
        assert len(item["mask"]) == len(item["box"]) == len(item["box_label"]) == SETTINGS["frames"]
        assert (video.std((1, 2, 3)) > 20).all()
        assert (np.abs(np.diff(video.astype(int), axis=0)).mean((1, 2, 3)) > 1).all()


def test_boxes_are_the_extents_of_the_masks(folder, items):
    for item in items:
        for path, boxes, labels in zip(item["mask"], item["box"], item["box_label"], strict=True):
            mask = imread(folder / path)
            assert mask.shape == SETTINGS["size"]
            assert set(np.unique(mask)) <= {0, 255}
            assert labels == [1] * len(boxes)
            painted = np.zeros_like(mask, dtype=bool)
            for x1, y1, x2, y2 in boxes:
                painted[y1:y2, x1:x2] = True
                inside = mask[y1:y2, x1:x2] > 0
                assert inside[[0, -1]].any(1).all()
                assert inside[:, [0, -1]].any(0).all()
            assert not (mask > 0)[~painted].any()
            assert len(boxes) == (mask > 0).any()


def test_label_tells_whether_a_polyp_is_visible(items):
    for item in items:
        visible = np.mean([len(boxes) for boxes in item["box"]])
        assert visible >= 0.5 if item["label"] else visible == 0


def test_pixels_depend_on_the_seed_only(sample):
    def render(*seed: int) -> tuple[np.ndarray, np.ndarray]:
        return sample["rendering"].render_video(np.random.default_rng(seed), True, 3, (64, 80))

    video, masks = render(5, 1)
    again, masks_again = render(5, 1)
    np.testing.assert_array_equal(video, again)
    np.testing.assert_array_equal(masks, masks_again)
    assert (video != render(6, 1)[0]).mean() > 0.5


def test_mask_follows_the_polyp(sample):
    """The same colon without its polyp looks different where the mask is, and hardly so elsewhere."""
    rendering = sample["rendering"]
    rng = np.random.default_rng(8)
    colon = rendering.grow_colon(rng, True)
    endoscope = rendering.Endoscope(rng, (64, 80))
    healthy = type(colon)(**{**vars(colon), "polyp": None})
    for pose in rendering.inspect(rng, colon, 9)[2:7:2]:
        with_polyp, mask = rendering.film(colon, endoscope, pose)
        without, nothing = rendering.film(healthy, endoscope, pose)
        changed = (np.abs(np.log((with_polyp + 1e-3) / (without + 1e-3))) > 0.02).any(0)
        assert mask.any()
        assert not nothing.any()
        assert changed[mask].mean() > 0.95
        assert changed[~mask].mean() < 0.2


def test_second_run_changes_nothing(sample, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    files = content(folder)
    sample["generate"].generate(str(folder), **SETTINGS)
    assert content(folder) == files
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == before


def test_a_stopped_run_is_completed_with_the_same_files(sample, folder):
    files = content(folder)
    (folder / "videos" / "video_001.mp4").unlink()
    (folder / "masks" / "video_004" / "00002.png").unlink()
    (folder / "datalist.json").unlink()
    sample["generate"].generate(str(folder), **SETTINGS)
    assert content(folder) == files


def test_other_settings_are_not_mixed_in(sample, folder):
    with pytest.raises(ValueError, match="was prepared with {'seed': 3}, not {'seed': 4}"):
        sample["generate"].generate(str(folder), **{**SETTINGS, "seed": 4})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("videos", 4),
        ("videos", 7),
        ("frames", 1),
        ("seed", -1),
        ("fps", 0),
        ("size", (66, 80)),
        ("size", (64, 32)),
        ("size", 64),
    ],
)
def test_bad_arguments_are_named(sample, tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"^{argument}: expected .* found"):
        sample["generate"].generate(str(tmp_path), **{**SETTINGS, argument: value})
    assert not list(tmp_path.iterdir())
