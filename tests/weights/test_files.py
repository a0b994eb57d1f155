# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from endofm_monai.networks import freeze_blocks
from endofm_monai.networks.nets import EndoFMClassifier, EndoFMSegmenter
from endofm_monai.weights import WeightsError, initialize_backbone, load_published, read_weights
from endofm_monai.weights.__main__ import compact

SIZE = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "temporal": False}


@pytest.fixture
def bundles(tmp_path):
    for name in ("a_segmentation", "a_classification"):
        (tmp_path / name / "models").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def segmenter(bundles):
    """A network, written compactly, and what is read back."""
    torch.manual_seed(0)
    network = EndoFMSegmenter.from_preset("tiny", decoder="simple", **SIZE)
    torch.save(network.state_dict(), bundles / "trained.pt")
    target = bundles / "a_segmentation/models/model.safetensors"
    compact(bundles / "trained.pt", target)
    return network, target


def test_rounding_is_at_most_half_a_step_of_each_channel(segmenter, bundles):
    network, target = segmenter
    assert target.stat().st_size < 0.35 * (bundles / "trained.pt").stat().st_size  # tiny: names and tables weigh
    read = EndoFMSegmenter.from_preset("tiny", decoder="simple", **SIZE)
    load_published(read, target)
    for (name, before), after in zip(network.state_dict().items(), read.state_dict().values(), strict=True):
        step = before.flatten(1).abs().amax(1) / 127 if name.endswith(".weight") and before.ndim > 1 else None
        if step is None:
            assert torch.equal(after, before), name
        else:
            assert ((after - before).flatten(1).abs().amax(1) <= 0.501 * step).all(), name


def test_rounding_twice_changes_nothing(segmenter, bundles):
    network, target = segmenter
    load_published(network, target)
    torch.save(network.state_dict(), bundles / "again.pt")
    compact(bundles / "again.pt", bundles / "again.safetensors")
    again = EndoFMSegmenter.from_preset("tiny", decoder="simple", **SIZE)
    load_published(again, bundles / "again.safetensors")
    for before, after in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_its_backbone_starts_another_network(segmenter):
    _, target = segmenter
    video = EndoFMClassifier.from_preset("tiny", **{**SIZE, "temporal": True})
    initialize_backbone(video, target)
    frame = EndoFMSegmenter.from_preset("tiny", decoder="simple", **SIZE)
    load_published(frame, target)
    clip = torch.rand(1, 3, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(video.eval().backbone(clip), frame.eval().backbone(clip))


@pytest.fixture
def classifier(segmenter, bundles):
    """A network whose head and last normalization learned on the segmenter's frozen backbone."""
    network = EndoFMClassifier.from_preset("tiny", num_classes=2, **SIZE)
    load_published(network.backbone, segmenter[1], strict=False)
    freeze_blocks(network, 2)
    with torch.no_grad():
        network.backbone.norm.bias += 1
    torch.save(network.state_dict(), bundles / "trained.pt")
    target = bundles / "a_classification/models/model.safetensors"
    compact(bundles / "trained.pt", target, shares_with=str(bundles / "a_segmentation"))
    return network, target


def test_a_shared_backbone_is_stored_once(classifier):
    network, target = classifier
    assert target.stat().st_size < 3000
    read = EndoFMClassifier.from_preset("tiny", num_classes=2, **SIZE)
    load_published(read, target)
    for (name, before), after in zip(network.state_dict().items(), read.state_dict().values(), strict=True):
        assert torch.allclose(after, before, atol=0 if name.startswith("backbone.") else 1e-3), name


def test_files_and_folders_may_be_links(classifier, bundles, tmp_path):
    network, target = classifier
    (tmp_path / "elsewhere").symlink_to(target.parents[1])
    load_published(network, tmp_path / "elsewhere/models/model.safetensors")
    store = tmp_path / "store"
    store.mkdir()
    for file in (target, bundles / "a_segmentation/models/model.safetensors"):
        file.rename(store / file.parents[1].name)
        file.symlink_to(store / file.parents[1].name)
    load_published(network, target)


def test_another_backbone_or_none_is_refused(classifier, bundles):
    network, target = classifier
    other = bundles / "a_segmentation/models/model.safetensors"
    torch.save(network.state_dict(), bundles / "trained.pt")
    compact(bundles / "trained.pt", other)
    with pytest.raises(
        WeightsError, match=r"a_classification/models/model.safetensors: shares .*but not this one: its SHA"
    ):
        load_published(network, target)
    other.unlink()
    with pytest.raises(
        WeightsError,
        match=r"^\S+: shares its backbone with .*a_segmentation/models/model.safetensors, which is missing",
    ):
        load_published(network, target)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", ""])
def test_a_file_leads_to_no_other_folder(classifier, bundles, name):
    network, target = classifier
    content = target.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"a_segmentation"', b'"' + name.encode() + b'"').rstrip()
    target.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    with pytest.raises(WeightsError, match="must be the name of a bundle's folder"):
        load_published(network, target)


def test_scales_of_another_size_allocate_nothing(bundles):
    path = bundles / "bomb.safetensors"
    save_file({"a.weight": torch.ones(1, 100_000, dtype=torch.int8), "a.weight.int8_scale": torch.ones(100_000)}, path)
    with pytest.raises(WeightsError, match=r"bomb.safetensors: 'a.weight.int8_scale' has the shape \(100000,\), for"):
        read_weights(path)


def test_positions_are_resampled_for_frames_of_another_size(segmenter, bundles):
    network, _ = segmenter
    with torch.no_grad():
        rows = torch.arange(2.0).reshape(1, 2, 1, 1).expand(1, 2, 2, 32)
        network.backbone.pos_embed[:, 1:] = rows.flatten(1, 2)
    torch.save(network.state_dict(), bundles / "rows.pt")
    compact(bundles / "rows.pt", bundles / "rows.safetensors", img_size=[64, 96])
    larger = EndoFMSegmenter.from_preset("tiny", decoder="simple", **{**SIZE, "img_size": (64, 96)})
    load_published(larger, bundles / "rows.safetensors")
    assert torch.equal(larger.backbone.pos_embed[:, 0], network.backbone.pos_embed[:, 0])
    grid = larger.backbone.pos_embed[0, 1:].reshape(4, 6, 32)
    assert (grid[1:] > grid[:-1]).all()  # four places on a slope, where there were two
    torch.testing.assert_close(grid, grid[:, :1].expand_as(grid))
    with pytest.raises(ValueError, match="`img_size` must be a multiple of 16, the side of a patch, but got 40"):
        compact(bundles / "rows.pt", bundles / "rows.safetensors", img_size=40)
    torch.save({"head.weight": torch.zeros(2, 2)}, bundles / "head.pt")
    with pytest.raises(WeightsError, match=r"head\.pt: has no backbone\.pos_embed"):
        compact(bundles / "head.pt", bundles / "rows.safetensors", img_size=64)


@pytest.mark.parametrize("size", [(32, 48), (144, 256)])  # the latter's 9 x 16 patches are as many as 12 x 12
def test_positions_of_frames_that_are_no_squares_keep_their_rows_and_columns(bundles, size):
    rows, columns = size[0] // 16, size[1] // 16
    network = EndoFMSegmenter.from_preset("tiny", decoder="simple", **{**SIZE, "img_size": size})
    with torch.no_grad():
        slope = torch.arange(float(rows)).reshape(rows, 1, 1).expand(rows, columns, 32)
        network.backbone.pos_embed[0, 1:] = slope.flatten(0, 1)
    source, target = bundles / "wide.pt", bundles / "wide.safetensors"
    torch.save(network.state_dict(), source)
    text = compact(source, target, img_size=[2 * side for side in size], trained_size=size)
    assert text.endswith(f", positions of {rows}x{columns} patches resampled to {2 * rows}x{2 * columns}")
    grid = read_weights(target).state["pos_embed"][0, 1:].reshape(2 * rows, 2 * columns, 32)
    torch.testing.assert_close(grid, grid[:, :1].expand_as(grid))  # no column differs from another
    torch.testing.assert_close(grid[:: 2 * rows - 1, 0, 0], torch.tensor([0, rows - 1.0]), atol=0.1, rtol=0)
    assert (grid[1:] > grid[:-1]).all()


def test_positions_are_not_resampled_by_a_wrong_grid(bundles):
    network = EndoFMSegmenter.from_preset("tiny", decoder="simple", **{**SIZE, "img_size": (32, 48)})
    torch.save(network.state_dict(), bundles / "wide.pt")
    for trained, expected in ((None, "those of a square"), (48, "3x3")):
        with pytest.raises(WeightsError, match=rf"wide.pt: \S+ has 7 entries, expected 1 and {expected}; say by `tr"):
            compact(bundles / "wide.pt", bundles / "x.safetensors", img_size=64, trained_size=trained)
    assert not (bundles / "x.safetensors").exists()


def test_rounding_is_as_exact_in_half_precision(bundles):
    kernel = torch.randn(512, 768, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.save({"head.weight": kernel}, bundles / "half.pt")
    compact(bundles / "half.pt", bundles / "half.safetensors")
    read, kernel = read_weights(bundles / "half.safetensors").state["head.weight"].float(), kernel.float()
    assert ((read - kernel).abs().amax(1) <= 0.501 * kernel.abs().amax(1) / 127).all()  # none with another sign


def test_what_is_alike_beside_the_backbone_is_kept(segmenter, bundles):
    network, target = segmenter
    load_published(network, target)
    with torch.no_grad():
        network.backbone.norm.bias += 1
    torch.save(network.state_dict(), bundles / "again.pt")
    other = bundles / "a_classification/models/model.safetensors"
    compact(bundles / "again.pt", other, shares_with=str(bundles / "a_segmentation"))
    read = EndoFMSegmenter.from_preset("tiny", decoder="simple", **SIZE)
    assert not load_published(read, other).missing
    for before, after in zip(network.state_dict().values(), read.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_only_a_network_is_made_compact(bundles):
    torch.save({"epoch": 3}, bundles / "other.pt")
    with pytest.raises(WeightsError, match="other.pt: expected the state dict of a network, found epoch"):
        compact(bundles / "other.pt", bundles / "x.safetensors")
