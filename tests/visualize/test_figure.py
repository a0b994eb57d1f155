# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from endofm_monai.visualize import plot_attention, plot_embeddings, plot_views
from endofm_monai.visualize.figure import new_figure, pick_frames, rgb_frames, save_figure


@pytest.mark.parametrize(
    ("num_frames", "expected"), [(1, [0]), (2, [0, 1]), (8, list(range(8))), (16, [0, 2, 4, 6, 9, 11, 13, 15])]
)
def test_pick_frames_has_the_first_and_the_last(num_frames: int, expected: list[int]) -> None:
    assert pick_frames(num_frames) == expected


def test_rgb_frames_undo_the_normalization() -> None:
    rgb = torch.randint(256, (3, 2, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (rgb / 255 - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    expected = rgb.permute(1, 2, 3, 0).numpy() / 255
    np.testing.assert_allclose(rgb_frames(rgb), expected, atol=1e-7)
    np.testing.assert_allclose(rgb_frames(normalized), expected, atol=1e-6)
    np.testing.assert_allclose(rgb_frames(normalized.bfloat16()), expected, atol=0.01)
    assert rgb_frames(torch.full((3, 1, 2, 2), 10.0)).max() == 1


def test_file_has_the_size_of_the_figure(tmp_path) -> None:
    save_figure(new_figure(2, 1), tmp_path / "new" / "blank.png")
    assert imread(tmp_path / "new" / "blank.png").shape[:2] == (200, 400)


def test_full_disk_keeps_the_former_picture(tmp_path, monkeypatch) -> None:
    path = tmp_path / "line.png"
    path.write_bytes(b"former")
    figure = new_figure(1, 1)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match=r"No space left on device.*line\.png"):
        save_figure(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["line.png"]
    assert path.read_bytes() == b"former"


def test_pictures_leave_matplotlib_and_random_states_alone(tmp_path) -> None:
    def global_state() -> tuple:
        numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
        return dict(matplotlib.rcParams), torch.get_rng_state().tolist(), numpy_state

    before = global_state()
    plot_views([torch.zeros(3, 2, 8, 8)] * 3, tmp_path / "a.png")
    plot_attention(torch.zeros(3, 2, 8, 8), torch.ones(2, 1, 5, 5) / 5, tmp_path / "b.png")
    plot_embeddings(np.random.default_rng(0).normal(size=(60, 4)), None, tmp_path / "c.png")
    assert global_state() == before
