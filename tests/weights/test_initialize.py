# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from endofm_monai.weights import WeightsError, initialize_backbone


def test_none_keeps_the_random_weights(make_network):
    network = make_network()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert initialize_backbone(network) is network
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_only_the_backbone_of_a_network_is_filled(tmp_path, make_network, training_checkpoint, backbone_state, caplog):
    torch.save(training_checkpoint, tmp_path / "endo_fm.pth")
    network = make_network()
    head = {key: tensor.clone() for key, tensor in network.head.state_dict().items()}
    with caplog.at_level(logging.INFO):
        assert initialize_backbone(network, tmp_path / "endo_fm.pth", which="student") is network
    assert all(torch.equal(tensor, head[key]) for key, tensor in network.head.state_dict().items())
    expected = backbone_state("student")
    assert all(torch.equal(tensor, expected[key]) for key, tensor in network.backbone.state_dict().items())
    assert "endo_fm.pth (training checkpoint, student): loaded 67 of the network's 67 tensors" in caplog.text


def test_from_a_config(tmp_path, backbone_state):
    torch.save(backbone_state(), tmp_path / "model.pt")
    parser = ConfigParser(
        {
            "backbone_weights": str(tmp_path / "model.pt"),
            "backbone": {
                "_target_": "endofm_monai.weights.initialize_backbone",
                "network": {
                    "_target_": "endofm_monai.networks.nets.EndoFM",
                    "img_size": 64,
                    "num_frames": 4,
                    "embed_dim": 48,
                    "depth": 3,
                    "num_heads": 4,
                },
                "weights": "@backbone_weights",
            },
        }
    )
    backbone = parser.get_parsed_content("backbone")
    assert torch.equal(backbone.pos_embed, backbone_state()["pos_embed"])


def test_a_network_without_backbone_or_a_missing_file(tmp_path, make_network):
    with pytest.raises(TypeError, match="got Linear"):
        initialize_backbone(nn.Linear(2, 2), tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"none\.pth: there is no such file"):
        initialize_backbone(make_network(), tmp_path / "none.pth")
