# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from endofm_monai.networks.nets import EndoFM
from endofm_monai.visualize import draw_boxes, overlay_mask, plot_attention, plot_embeddings, plot_masks, plot_views
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


@pytest.mark.parametrize("name", ["in$x_$y.mp4", "a $\\foo$ b"])
def test_names_with_dollars_are_no_formulas(tmp_path, name: str) -> None:
    figure = new_figure(2, 1)
    axes = figure.subplots()
    axes.set_title(name)
    axes.set_yticks([0, 1], [name, name])
    axes.plot([0, 1], label=name)
    axes.legend()
    save_figure(figure, tmp_path / "named.png")
    assert imread(tmp_path / "named.png").shape[:2] == (200, 400)


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
    plot_embeddings(np.random.default_rng(0).normal(size=(60, 4)), [-1] * 60, tmp_path / "c.png")
    assert global_state() == before


TEN_VIEWS = [(8, 24), (16, 24), *((frames, 12) for frames in (2, 2, 4, 4, 8, 8, 16, 16))]


def views_of(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Views whose frames are all of one gray, which tells the view and the frame."""
    views = []
    for number, (frames, size) in enumerate(shapes):
        gray = (10 * number + torch.arange(frames, dtype=torch.uint8)).view(1, frames, 1, 1)
        views.append(gray.expand(3, frames, size, size))
    return views


def test_ten_views_with_titles_and_frames(tmp_path) -> None:
    figure = plot_views(views_of(TEN_VIEWS), tmp_path / "views.png")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == [
        "Global view 1: 8 frames, 24\u00d724 pixels",
        "Global view 2: 16 frames (8 shown), 24\u00d724 pixels",
        "Local view 1: 2 frames, 12\u00d712 pixels",
    ]
    assert titles[-1] == "Local view 8: 16 frames (8 shown), 12\u00d712 pixels"
    for number, (axes, (frames, size)) in enumerate(zip(figure.axes, TEN_VIEWS, strict=True)):
        strip = axes.images[0].get_array()
        assert strip.shape[0] == size
        starts = np.arange(min(frames, 8)) * (size + size // 24)
        shown = (strip[0, starts, 0] * 255).round().astype(int).tolist()
        last = frames - 1
        assert [shown[0], shown[-1]] == [10 * number, 10 * number + last]
        assert np.all(strip[:, starts[-1] + size :] == 1)  # white where there are no more frames
    written = imread(tmp_path / "views.png")
    assert written.shape[:2] == (figure.bbox.height, figure.bbox.width)
    assert written[..., :3].std() > 0.1


@pytest.mark.parametrize(("shapes", "global_views"), [([(1, 8)], 1), ([(2, 8)] * 4, 1), ([(3, 8)] * 3, 3)])
def test_any_plan(tmp_path, shapes, global_views: int) -> None:
    figure = plot_views(views_of(shapes), tmp_path / "views.png", global_views)
    names = [axes.get_title(loc="left").split(":")[0] for axes in figure.axes]
    assert names == [f"Global view {n + 1}" for n in range(global_views)] + [
        f"Local view {n + 1}" for n in range(len(shapes) - global_views)
    ]


ROWS, COLUMNS = 2, 3  # of patches with 8 x 8 pixels


def overlays(figure) -> list:
    return [axes.images[1] for axes in figure.axes if len(axes.images) == 2]


def peaked(row: int, column: int, frames: int = 2) -> torch.Tensor:
    """Two heads, of which the first looks at one patch, and the second at the class token itself."""
    attention = torch.zeros(frames, 2, 1 + ROWS * COLUMNS, 1 + ROWS * COLUMNS)
    attention[:, 0, 0, 1 + row * COLUMNS + column] = 1
    attention[:, 1, 0, 0] = 1
    attention[:, :, 1:] = torch.rand(attention[:, :, 1:].shape)  # what patches look at does not matter
    return attention


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (1, 1)])
def test_the_heat_is_where_the_class_token_looks(tmp_path, row: int, column: int) -> None:
    figure = plot_attention(torch.zeros(3, 2, 16, 24), peaked(row, column), tmp_path / "attention.png")
    assert len(overlays(figure)) == 2
    for overlay in overlays(figure):
        heat = np.zeros((ROWS, COLUMNS))
        heat[row, column] = 7 / 2  # mean of the heads, times the number of tokens
        np.testing.assert_allclose(overlay.get_array(), heat, rtol=1e-6)
        assert overlay.get_extent() == [-0.5, 23.5, 15.5, -0.5]
        assert overlay.get_clim() == pytest.approx((0, 3.5), rel=0.05)


def test_the_drawn_heat_covers_its_patch(tmp_path) -> None:
    figure = plot_attention(torch.zeros(3, 1, 16, 24), peaked(1, 2, frames=1), tmp_path / "attention.png")
    pixels = imread(tmp_path / "attention.png")[..., :3]
    left, bottom, right, top = overlays(figure)[0].axes.get_window_extent().extents.astype(int)
    inside = 2  # pixels from the white that surrounds the panel, as its edges fall between pixels
    rows = slice(len(pixels) - top + inside, len(pixels) - bottom - inside)
    panel = pixels[rows, left + inside : right - inside].sum(axis=2)
    row, column = np.unravel_index(panel.argmax(), panel.shape)
    assert row > panel.shape[0] / ROWS
    assert column > panel.shape[1] * 2 / COLUMNS


def test_uniform_attention_is_one_and_no_peak(tmp_path) -> None:
    figure = plot_attention(torch.zeros(3, 1, 16, 24), torch.full((1, 3, 7, 7), 1 / 7), tmp_path / "attention.png")
    (overlay,) = overlays(figure)
    np.testing.assert_allclose(overlay.get_array(), 1, rtol=1e-6)
    assert overlay.get_clim() == (0, 2)


def test_attention_of_the_network(tmp_path) -> None:
    backbone = EndoFM(img_size=(16, 24), patch_size=8, num_frames=2, embed_dim=16, depth=1, num_heads=2).eval()
    clip = torch.rand(1, 3, 12, 16, 24)
    figure = plot_attention(clip[0], backbone.attention_maps(clip)[0], tmp_path / "attention.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:8] == [f"frame {number}" for number in (0, 2, 3, 5, 6, 8, 9, 11)]  # as everywhere
    assert overlays(figure)[0].get_array().shape == (ROWS, COLUMNS)


@pytest.mark.parametrize(("frames", "tokens"), [(3, 7), (2, 6), (2, 1)])
def test_attention_of_another_clip(tmp_path, frames: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="does not fit 2 frames of 16x24 pixels"):
        plot_attention(torch.zeros(3, 2, 16, 24), torch.ones(frames, 1, tokens, tokens), tmp_path / "attention.png")


def test_mask_is_translucent_with_a_solid_contour():
    frame, mask = np.full((20, 30, 3), 100, np.uint8), np.zeros((20, 30), bool)
    mask[5:15, 5:15] = True
    drawn = overlay_mask(frame, mask, color=(200, 0, 100), opacity=0.5)
    assert drawn[10, 10].tolist() == [150, 50, 100]
    assert drawn[5, 10].tolist() == drawn[10, 14].tolist() == [200, 0, 100]
    assert (drawn[~mask] == 100).all()
    assert (frame == 100).all()


def test_no_foreground_leaves_the_frame():
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay_mask(frame, np.zeros((8, 8), int)), frame)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"\(8, 9\)"):
        overlay_mask(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), bool))


def test_plot_has_a_row_for_each_mask(tmp_path):
    frames = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    mask = torch.zeros(3, 32, 32)
    mask[:, 8:20, 8:20] = 1
    figure = plot_masks(frames, mask, torch.zeros_like(mask), tmp_path / "masks.png", [0, 5, 9])
    assert len(figure.axes) == 3 * 4
    assert [axes.get_title() for axes in figure.axes[:3]] == ["frame 0", "frame 5", "frame 9"]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["image", "truth", "prediction", "difference"]
    assert (tmp_path / "masks.png").stat().st_size > 1000
    image, truth, prediction, difference = (axes.images[0].get_array() for axes in figure.axes[::3])
    assert (image == truth).all()
    assert prediction[14, 14, 2] > prediction[14, 14, 0]
    assert difference[14, 14, 0] > difference[14, 14, 1]  # all of the prediction is in excess


def test_a_box_of_one_pixel_is_drawn():
    box = torch.tensor([[0.3, 0.3, 1.3, 1.3]])  # in float32 its width is less than 1
    drawn = draw_boxes(np.zeros((20, 20, 3), np.uint8), box, torch.tensor([1]), torch.tensor([0.5]), ["polyp"])
    assert drawn[:2, :2].any()
