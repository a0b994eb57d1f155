# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import logging
import multiprocessing
import time

import pytest
import torch

from endofm_monai.networks.nets import EndoFM
from endofm_monai.utils import atomic_path, remove_leftovers

KEYS = {"student", "teacher", "loss", "optimizer", "scaler", "best", "iteration", "epoch_length", "random_states"}


def test_files_load_safely_and_hold_everything(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.run()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state) == KEYS
    assert torch.equal(state["loss"]["center"], trainer.loss_function.center)
    backbone = EndoFM(img_size=32, num_frames=4, embed_dim=16, depth=2, num_heads=2)
    backbone.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for name, value in trainer.network.teacher.backbone.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "model.pt"]


def test_former_training_is_not_overwritten(make_trainer, tmp_path):
    make_trainer(tmp_path, epochs=1).run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(FileExistsError, match=r"checkpoint.pt holds a former training. Go on with it by `resume=True`"):
        make_trainer(tmp_path, epochs=1).run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_resume_without_a_checkpoint_starts_and_a_missing_file_is_named(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path / "new", epochs=1, resume=True)
    trainer.run()
    assert trainer.state.iteration == 5
    with pytest.raises(FileNotFoundError, match="nowhere.pt: there is no checkpoint"):
        make_trainer(tmp_path, resume=str(tmp_path / "nowhere.pt")).run()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate", "checkpoint.pt: not a readable checkpoint"),
        ("empty", r"checkpoint.pt: not a readable checkpoint \(.+\)"),
        ("list", "checkpoint.pt: not a training checkpoint, but a list"),
        ("iteration", "checkpoint.pt: not a training checkpoint, `iteration` is a str"),
        ("best", "checkpoint.pt: not a training checkpoint, `best` is a str"),
        ("random_states", "checkpoint.pt: not a training checkpoint, `random_states` is a str"),
        ("optimizer", "checkpoint.pt: `optimizer` does not fit this training: "),
        ("student", "checkpoint.pt: `student` does not fit this training: "),
        ("other file", "checkpoint.pt: not a training checkpoint, student, teacher"),
        ("without", "checkpoint.pt: of a training without scaler; resume with the settings that it was made with"),
        ("groups", "`optimizer` does not fit .* 3 groups of parameters learned, and 2 do now"),
        ("other network", "checkpoint.pt: `student` does not fit this training: .*size mismatch"),
        ("deeper network", r"`student` does not fit this training: .*Unexpected key.* \.\.\.$"),
        ("other data", "checkpoint.pt: made with 5 iterations an epoch, but this training has 3"),
    ],
)
def test_checkpoint_that_does_not_fit_is_named(make_trainer, tmp_path, damage, message):
    make_trainer(tmp_path, epochs=1).run()
    path = tmp_path / "checkpoint.pt"
    clips = 10
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "list":
        torch.save([1], path)
    elif damage in KEYS:
        torch.save(torch.load(path, weights_only=True) | {damage: "text"}, path)
    elif damage == "other file":
        torch.save({"weights": torch.zeros(3)}, path)
    elif damage == "without":
        state = torch.load(path, weights_only=True)
        torch.save({name: part for name, part in state.items() if name != "scaler"}, path)
    elif damage == "groups":
        state = torch.load(path, weights_only=True)
        state["optimizer"]["param_groups"].append(state["optimizer"]["param_groups"][0])
        torch.save(state, path)
    elif damage == "other network":
        state = torch.load(path, weights_only=True)
        state["student"]["backbone.cls_token"] = torch.zeros(1, 1, 3)
        torch.save(state, path)
    elif damage == "deeper network":
        state = torch.load(path, weights_only=True)
        state["student"].update({f"backbone.blocks.{block}.weight": torch.zeros(1) for block in range(1000)})
        torch.save(state, path)
    else:
        clips = 6
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, epochs=1, clips=clips, resume=True).run()


def test_full_disk_keeps_the_former_checkpoint_and_training_goes_on(make_trainer, tmp_path, monkeypatch, caplog):
    make_trainer(tmp_path, max_epochs=1).run()
    caplog.clear()
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def fill_the_disk(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    trainer = make_trainer(tmp_path, epochs=3, resume=True)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "endofm_monai"):
        patch.setattr(torch, "save", fill_the_disk)
        with pytest.raises(OSError, match="could not write.*checkpoint.pt"):
            trainer.run()
    assert trainer.state.epoch == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.endswith("The former checkpoint is kept; training goes on.") for message in warnings] == [True] * 2
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "model.pt"]


def test_a_folder_that_cannot_be_written_to_ends_the_training_before_its_first_step(make_trainer, tmp_path):
    (tmp_path / "file").touch()
    trainer = make_trainer(tmp_path / "file" / "models")
    with pytest.raises(OSError, match="cannot be written to"):
        trainer.run()
    assert trainer.state.iteration == 0


def save_versions(path):
    for version in itertools.count(1):
        with atomic_path(path) as temporary:
            torch.save({"version": version, "values": torch.full((200_000,), version)}, temporary)


def test_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    """SIGKILL at any moment: what is at ``path`` is one of the complete versions."""
    path = tmp_path / "checkpoint.pt"
    process = multiprocessing.get_context("fork").Process(target=save_versions, args=(path,))
    process.start()
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    process.join()
    state = torch.load(path, weights_only=True)
    assert (state["values"] == state["version"]).all()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
