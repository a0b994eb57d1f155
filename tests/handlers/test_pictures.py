# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from monai.networks import train_mode
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endofm_monai.handlers import AttentionPictureHandler, ViewsPictureHandler

HANDLERS = pytest.mark.parametrize(
    ("handler", "name"), [(ViewsPictureHandler, "views"), (AttentionPictureHandler, "attention")]
)


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


@HANDLERS
def test_pictures_come_at_the_first_iteration_and_at_intervals(make_trainer, tmp_path, handler, name: str) -> None:
    make_trainer(epochs=2, clips=8, handlers=[handler(str(tmp_path), interval=3)]).run()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert pictures(tmp_path / name) == ["0000001.png", "0000003.png", "0000006.png"]
    log = EventAccumulator(str(tmp_path / name)).Reload()
    assert log.Tags()["images"] == [name]
    assert [event.step for event in log.Images(name)] == [1, 3, 6]
    height, width, _ = imread(tmp_path / name / "0000001.png").shape
    assert (log.Images(name)[0].height, log.Images(name)[0].width) == (height, width)


@HANDLERS
def test_the_training_is_the_same_with_and_without(make_trainer, tmp_path, handler, name: str) -> None:
    plain = make_trainer(epochs=2, clips=4)
    plain.run()
    pictured = make_trainer(epochs=2, clips=4, handlers=[handler(tmp_path, interval=1)])
    pictured.run()
    assert len(pictures(tmp_path / name)) == 4
    for key, value in plain.network.state_dict().items():
        assert torch.equal(value, pictured.network.state_dict()[key]), key


def test_the_views_are_those_of_the_batch(make_trainer, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "endofm_monai.handlers.pictures.plot_views",
        lambda views, path, num_global_views: drawn.append((views, num_global_views)),
    )
    handler = ViewsPictureHandler(tmp_path)
    trainer = make_trainer(epochs=1, clips=2)
    trainer.run()
    handler.draw(trainer.network, [view[:1] for view in trainer.state.output["image"]], tmp_path / "views.png")
    ((views, num_global_views),) = drawn
    assert num_global_views == 2
    assert [tuple(view.shape) for view in views] == [(3, 2, 32, 32), (3, 4, 32, 32), (3, 2, 16, 16), (3, 2, 16, 16)]
    for view, batch in zip(views, trainer.state.output["image"], strict=True):
        assert torch.equal(view, batch[0])


def test_the_attention_is_the_teacher_s_without_drop_path(make_trainer, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "endofm_monai.handlers.pictures.plot_attention",
        lambda frames, attention, path: drawn.append((frames, attention)),
    )
    trainer = make_trainer(epochs=1, clips=2)
    trainer.run()
    views = [view[:1] for view in trainer.state.output["image"]]
    teacher = trainer.network.teacher
    with torch.no_grad():
        expected = teacher.backbone.eval().attention_maps(views[0])[0]
    modes = []
    teacher.backbone.blocks[0].register_forward_hook(lambda block, *_: modes.append(block.training))
    with train_mode(teacher):  # as with `reference_teacher_drop_path`
        AttentionPictureHandler(tmp_path).draw(trainer.network, views, tmp_path / "attention.png")
        assert all(module.training for module in teacher.modules())
    assert modes == [False]
    ((frames, attention),) = drawn
    assert torch.equal(frames, views[0][0])
    torch.testing.assert_close(attention, expected)


@HANDLERS
def test_a_batch_without_a_readable_clip_has_no_picture(make_trainer, tmp_path, handler, name: str) -> None:
    make_trainer(epochs=1, clips=[{"clip": None}] * 2, handlers=[handler(tmp_path, interval=1)]).run()
    assert not pictures(tmp_path / name)


@HANDLERS
def test_other_ranks_draw_nothing(make_trainer, tmp_path, monkeypatch, handler, name: str) -> None:
    trainer = make_trainer(epochs=1, clips=2)
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    handler(tmp_path, interval=1).attach(trainer)
    monkeypatch.undo()
    trainer.run()
    assert not list(tmp_path.iterdir())


@HANDLERS
def test_bad_interval(tmp_path, handler, name: str) -> None:
    with pytest.raises(ValueError, match="at least 1 iteration, but got 0"):
        handler(tmp_path, interval=0)


def test_pictures_after_a_kill_are_logged_once(make_trainer, tmp_path) -> None:
    for _ in range(2):  # steps after the last checkpoint are made again
        make_trainer(epochs=1, clips=4, handlers=[ViewsPictureHandler(str(tmp_path), interval=1)]).run()
        time.sleep(1.1)  # the names of logs count seconds
    log = EventAccumulator(str(tmp_path / "views")).Reload()
    assert [event.step for event in log.Images("views")] == [1, 2]
