# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from endofm_monai.handlers import ClipEmbeddings, embed_clips

LABELS = [0, 1, 1, None, 0]


def test_embeddings_are_the_network_s_in_the_order_of_the_datalist(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader([0, 1, 1, 2, 0], shuffle=True), "cpu")
    assert clips.paths == [f"clip{number}.mp4" for number in range(5)]
    assert clips.labels.tolist() == [0, 1, 1, 2, 0]
    assert clips.labels.dtype == np.int64
    dataset = make_clip_loader([0, 1, 1, 2, 0]).dataset
    with torch.no_grad():
        expected = backbone.eval()(torch.stack([dataset[number]["image"].as_tensor() for number in range(5)]))
    assert clips.embeddings.dtype == np.float32
    np.testing.assert_allclose(clips.embeddings, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_training_is_left_alone(make_clip_loader, backbone) -> None:
    loader = make_clip_loader([0, 1, 0])
    backbone.train()
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = embed_clips(backbone, loader, "cpu").embeddings
    assert all(module.training for module in backbone.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    np.testing.assert_array_equal(inside, embed_clips(backbone, loader, "cpu").embeddings)


def test_mode_is_restored_after_an_error(make_clip_loader, backbone) -> None:
    with pytest.raises(RuntimeError):
        embed_clips(backbone.train(), [{"image": torch.zeros(1, 4, 2, 16, 16)}], "cpu")
    assert backbone.training


def test_nothing_is_compiled(make_clip_loader, backbone) -> None:
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    for block in backbone.blocks:
        block.compile(backend=backend)
    embed_clips(backbone, make_clip_loader([0]), "cpu")
    assert not compiled
    backbone(torch.zeros(1, 3, 2, 16, 16))
    assert compiled


def test_broken_clips_are_left_out_also_all_of_a_batch(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader([0, 1, 0, 1, 1], unreadable=[0, 2, 3]), "cpu")
    assert clips.paths == ["clip1.mp4", "clip4.mp4"]
    assert clips.embeddings.shape == (2, 16)


def test_labels_that_are_not_class_indices_count_as_none(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader(["mask0.png", "mask1.png"]), "cpu")
    assert clips.labels.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="None of the 2 training clips has a class index"):
        clips.labeled("training")


def test_labeled_picks_the_clips_with_a_label(make_clip_loader, backbone) -> None:
    clips = embed_clips(backbone, make_clip_loader(LABELS, batch_size=1), "cpu")
    features, labels = clips.labeled("training")
    assert labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(features, clips.embeddings[[0, 1, 2, 4]])


def test_without_index_the_order_is_that_of_the_loader() -> None:
    batches = [{"image": torch.ones(2, 1), "path": ["b.mp4", "a.mp4"]}, {"image": torch.ones(1, 1), "path": ["c.mp4"]}]
    assert embed_clips(nn.Identity(), batches, "cpu").paths == ["b.mp4", "a.mp4", "c.mp4"]


def test_no_clips() -> None:
    clips = embed_clips(nn.Identity(), [], "cpu")
    assert (len(clips), clips.embeddings.shape, clips.labels.shape, clips.paths) == (0, (0, 0), (0,), [])


def test_bad_items() -> None:
    with pytest.raises(ValueError, match=r"shape \(D,\), but got \(4, 2\)"):
        ClipEmbeddings().add([{"path": "a.mp4"}], [torch.zeros(4, 2)])
    with pytest.raises(KeyError, match="path"):
        ClipEmbeddings().add([{"image": torch.zeros(1)}], [torch.zeros(4)])
