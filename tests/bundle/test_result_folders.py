# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import BundleUnderTest
from PIL import Image

from endofm_monai.formats import write_video
from endofm_monai.utils import cause_of

TINY = {"network_def::embed_dim": 32, "network_def::depth": 2, "network_def::num_heads": 2, "load_pretrain": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "detection": {"frame_size": [64, 64], "class_names": ["polyp"], "formats": ["csv"]},
    "segmentation": {"frame_size": 32, "decoder": "simple", "formats": ["png"], "num_workers": 0},
}


def infer(task: str, dataset_dir: Path, output_dir: Path, **overrides: Any) -> list[str]:
    """Names of the results of an untrained network."""
    BundleUnderTest(f"endofm_polyp_{task}").workflow(
        "infer",
        "inference",
        dataset_dir=str(dataset_dir),
        output_dir=str(output_dir),
        device="cpu",
        **{"preset": "tiny", **TINY, **SETTINGS[task], **overrides},
    ).run()
    results = output_dir.rglob("detections.csv" if task == "detection" else "masks")
    return sorted(path.parent.relative_to(output_dir).as_posix() for path in results)


@pytest.fixture
def stills(tmp_path) -> Path:
    """Three pictures of different size, directly in a folder."""
    folder = tmp_path / "stills"
    folder.mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (48 + 16 * number, 40)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("task", SETTINGS)
def test_single_images_are_a_result_each(task, stills, tmp_path):
    assert infer(task, stills, tmp_path / "out", single_images=True) == ["a", "b", "c"]


@pytest.mark.parametrize("task", SETTINGS)
def test_a_frame_size_that_the_network_cannot_see_leaves_nothing_that_refuses_the_right_one(task, stills, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        infer(task, stills, tmp_path / "out", single_images=True, frame_size=36)
    wanted = "the network cannot see frames of this `frame_size`: Frames must have sides in multiples of 16 pixels"
    assert str(cause_of(caught.value)) == f"{wanted}, got 36x36."
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", SETTINGS)
def test_the_folder_itself_may_be_the_clip(task, stills, tmp_path):
    for path in stills.iterdir():
        Image.new("RGB", (48, 40)).save(path)
    assert infer(task, stills, tmp_path / "out") == ["stills"]


@pytest.mark.parametrize("task", SETTINGS)
def test_parts_of_one_video_and_videos_of_one_name_do_not_overwrite_each_other(task, tmp_path):
    frames = np.zeros((8, 40, 48, 3), np.uint8)
    for suffix in (".mp4", ".mkv"):
        write_video(tmp_path / "data" / f"v{suffix}", frames, 25)
    listed = '{"test": ["v.mp4#frames=0-3", "v.mp4#frames=4-7", "v.mp4", "v.mkv"]}'
    (tmp_path / "list.json").write_text(listed)
    found = infer(task, tmp_path / "data", tmp_path / "out", datalist=str(tmp_path / "list.json"))
    assert found == ["v", "v_0-3", "v_2", "v_4-7"]
