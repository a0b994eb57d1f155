# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import runpy
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from monai.data import load_decathlon_datalist
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.io import imread, imsave
from skimage.transform import ProjectiveTransform
from small_sets import content

SAMPLE = Path(__file__).parents[2] / "datasets" / "sample"
SETTINGS = {"videos": 6, "frames": 6, "size": (64, 80), "seed": 3}
SPLITS = ("training", "validation", "test")


@pytest.fixture(scope="module")
def sample():
    """The generator's modules, importable as they are for the script itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SAMPLE)
        import endoscope
        import generate

        yield {"generate": generate, "endoscope": endoscope}


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


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_splits_are_disjoint_by_still_and_balanced_by_class(datalist, items):
    assert len({item["image"] for item in items}) == len(items) == SETTINGS["videos"]
    assert len({item["still"] for item in items}) == len(items)
    for split in SPLITS:
        assert np.mean([item["label"] for item in datalist[split]]) == 0.5


@pytest.mark.parametrize(
    ("videos", "sizes"), [(6, (2, 2, 2)), (16, (10, 2, 4)), (40, (26, 4, 10)), (100, (64, 12, 24))]
)
def test_split_sizes(sample, videos, sizes):
    splits = sample["generate"].split_by_video(videos)
    assert tuple(len(splits[split]) for split in SPLITS) == sizes
    assert [index for split in SPLITS for index in splits[split]] == list(range(videos))


@pytest.mark.parametrize("videos", [6, 40, 60, 200])
def test_a_still_is_in_one_split_and_one_class(sample, videos):
    stills = np.array(sample["generate"].choose_stills(videos))
    parts = [set(stills[indices]) for indices in sample["generate"].split_by_video(videos).values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == min(videos, 60)
    np.testing.assert_array_equal(stills % 2, np.arange(videos) % 2)


def test_stills_fit_their_masks(sample):
    generate = sample["generate"]
    assert len({path.name for path in generate.STILLS.iterdir()}) == 1.5 * generate.NUM_STILLS
    for still in range(generate.NUM_STILLS):
        image, mask = generate.read_still(still)
        assert image.shape == (3, *mask.shape[1:])
        assert 220 <= max(image.shape) <= 320
        assert set(mask.unique().tolist()) == ({0.0, 1.0} if still % 2 else {0.0})


def test_attribution_names_licence_and_every_still(sample):
    attribution = (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in attribution
    for still in range(sample["generate"].NUM_STILLS):
        assert f"| {still:02d} | " in attribution


def test_monai_reads_the_datalist(folder, datalist):
    for split in SPLITS:
        items = load_decathlon_datalist(str(folder / "datalist.json"), is_segmentation=False, data_list_key=split)
        for item, written in zip(items, datalist[split], strict=True):
            assert item["image"] == str(folder / written["image"])
            assert item["mask"] == [str(folder / path) for path in written["mask"]]
            assert item["label"] == written["label"]


def test_datalist_says_what_the_data_are(datalist):
    assert "stills of PolypGen" in datalist["description"]
    assert "Never draw clinical conclusions" in datalist["note"]
    assert datalist["licence"].startswith("CC BY 4.0")


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
            assert bool(boxes) == (mask > 0).any()


def test_label_tells_whether_a_polyp_is_visible(items):
    for item in items:
        visible = np.mean([len(boxes) for boxes in item["box"]])
        assert visible >= 0.5 if item["label"] else visible == 0


def test_pixels_depend_on_the_seed_only(sample):
    def film(*seed: int) -> tuple[np.ndarray, np.ndarray]:
        still = sample["generate"].read_still(1)
        return sample["endoscope"].film(np.random.default_rng(seed), *still, 3, (64, 80))

    video, masks = film(5, 1)
    again, masks_again = film(5, 1)
    np.testing.assert_array_equal(video, again)
    np.testing.assert_array_equal(masks, masks_again)
    assert (video != film(6, 1)[0]).mean() > 0.5


def test_files_do_not_depend_on_the_number_of_processes(sample, folder, tmp_path):
    sample["generate"].generate(str(tmp_path), **SETTINGS, workers=1)
    assert content(tmp_path) == content(folder)


@pytest.mark.parametrize("size", [(64, 80), (160, 192), (128, 64)])
def test_mask_follows_the_polyp(sample, size):
    """In a still that is white on its polyp and black elsewhere, each frame is bright where its mask is."""
    _, mask = sample["generate"].read_still(1)
    video, masks = sample["endoscope"].film(np.random.default_rng(8), mask.expand(3, -1, -1), mask, 16, size)
    for picture, moved in zip(video.mean(-1), masks, strict=True):
        inside, outside = binary_erosion(moved, iterations=4), ~binary_dilation(moved, iterations=4)
        assert inside.any()
        assert picture[inside & (picture > 0)].min() > 100
        assert picture[outside].max() < 100


@pytest.mark.timeout(60)
def test_a_polyp_that_no_path_shows_holds_up_nothing(sample, monkeypatch):
    monkeypatch.setattr(sample["endoscope"], "MOST_PATHS", 3)
    mask = torch.zeros(1, 96, 96)
    mask[:, ::8, ::8] = 1  # specks
    video, masks = sample["endoscope"].film(np.random.default_rng(0), mask.expand(3, -1, -1), mask, 4, (64, 80))
    assert (video.shape, masks.any()) == ((4, 64, 80, 3), False)


def test_path_is_smooth_and_one_homography_a_frame(sample):
    """The view stays on the still and moves by few pixels a frame, and four points of a frame give all others."""
    endoscope = sample["endoscope"]
    path = endoscope.fly(np.random.default_rng(2), torch.zeros(200, 240), 64, (160, 192))
    grid = endoscope.aim(path, (200, 240), (160, 192)).numpy()
    assert np.abs(grid).max() <= 1
    assert np.abs(np.diff(grid * [120, 100], axis=0)).max() < 12
    places = endoscope.view_points((160, 192))
    for homography, moved in zip(path[::16], grid[::16], strict=True):
        fitted = ProjectiveTransform()
        corners = np.ix_([0, -1], [0, -1])
        fitted.estimate(places[corners].reshape(-1, 2), (moved * [120, 100])[corners].reshape(-1, 2))
        np.testing.assert_allclose(fitted.params, homography / homography[2, 2], atol=0.01)


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
    with pytest.raises(ValueError, match="was made with {'seed': 3}, not {'seed': 4}"):
        sample["generate"].generate(str(folder), **{**SETTINGS, "seed": 4})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("videos", 4),
        ("videos", 7),
        ("videos", "x"),
        ("frames", 1),
        ("seed", -1),
        ("fps", 0),
        ("size", (66, 80)),
        ("size", (64, 32)),
        ("size", 64),
        ("size", (64, "a")),
    ],
)
def test_bad_arguments_are_named(sample, tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"^{argument}: expected .* found"):
        sample["generate"].generate(str(tmp_path), **{**SETTINGS, argument: value})
    assert not list(tmp_path.iterdir())


def test_stills_of_a_prepared_set_become_videos(sample, tmp_path):
    from film_stills import film_stills

    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    (tmp_path / "set" / "frames").mkdir(parents=True)
    items = []
    for name, side in (("a", 40), ("b", 0), ("c", 2)):  # a polyp, none, one too small to look for
        mask = np.zeros((90, 120), np.uint8)
        mask[20 : 20 + side, 30 : 30 + side] = 255
        imsave(tmp_path / "set" / "frames" / f"{name}.png", pixels, check_contrast=False)
        imsave(tmp_path / "set" / "frames" / f"{name}_mask.png", mask, check_contrast=False)
        items.append({"image": [f"frames/{name}.png"], "mask": [f"frames/{name}_mask.png"], "video": f"x/{name}"})
    lists = {"training": items, "test": [{**items[0], "video": "x/never"}]}
    (tmp_path / "set" / "manifest.json").write_text('{"name": "Set", "licence": "L", "dataset_dir": "."}')
    (tmp_path / "set" / "datalist.json").write_text(json.dumps(lists))
    path = Path(film_stills(str(tmp_path / "set"), str(tmp_path / "out"), frames=4, size=(64, 80), workers=1))
    assert [item["image"] for item in json.loads(path.read_text())["training"]] == [
        "videos/x/a.mp4", "videos/x/b.mp4", "videos/x/c.mp4",
    ]  # fmt: skip
    with av.open(str(path.parent / "videos" / "x" / "a.mp4")) as container:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
    assert shapes == [(64, 80, 3)] * 4
    before = content(path.parent)
    (path.parent / "videos" / "x" / "b.mp4").unlink()
    film_stills(str(tmp_path / "set"), str(tmp_path / "out"), frames=4, size=(64, 80), workers=1)
    assert content(path.parent) == before
    with pytest.raises(ValueError, match="was made with {'frames': 4}"):
        film_stills(str(tmp_path / "set"), str(tmp_path / "out"), frames=8, size=(64, 80), workers=1)
    shutil.copytree(tmp_path / "set", tmp_path / "other")  # whose videos have the same names
    with pytest.raises(ValueError, match=r"was made with {'source': '\.\./set'}, not {'source': '\.\./other'}"):
        film_stills(str(tmp_path / "other"), str(tmp_path / "out"), frames=4, size=(64, 80), workers=1)
