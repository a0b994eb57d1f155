# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Engine, Events

from endofm_monai.data import ClipDataset, ClipLoader, ClipReadError
from endofm_monai.handlers import BrokenClipsHandler

CLIPS = [{"clip": index / 10} for index in range(9)] + [{"clip": None}]


def test_skip_reports_once_and_counts(make_trainer, caplog):
    handler = BrokenClipsHandler(on_error="skip", max_share=0.1)
    trainer = make_trainer(epochs=3, clips=CLIPS, handlers=[handler])
    with caplog.at_level(logging.WARNING, "endofm_monai"):
        trainer.run()
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("endofm_monai")]
    assert messages == [
        "Skipping a broken clip: lost.mp4: no such clip",
        "1 of 10 clips were broken and skipped.",
    ]
    assert trainer.state.epoch == 3


def test_a_clip_that_breaks_in_many_places_counts_once(caplog):
    def load(item):
        if item["image"] == "cut.mp4":
            raise ClipReadError(f"cut.mp4: frame {item['seed'] % 1000} cannot be decoded")
        return {**item, "image": torch.zeros(3, 2, 4, 4)}

    items = [{"image": f"{index}.mp4"} for index in range(9)] + [{"image": "cut.mp4"}]
    loader = ClipLoader(ClipDataset(items, load), 2, shuffle=True, num_workers=1)
    engine, told = Engine(lambda engine, batch: None), set()
    engine.data_loader = loader
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: loader.sampler.set_epoch(engine.state.epoch))
    engine.add_event_handler(Events.GET_BATCH_COMPLETED, lambda: told.update(engine.state.batch["broken"]))
    BrokenClipsHandler(on_error="skip", max_share=0.1).attach(engine)
    engine.run(loader, max_epochs=3)
    assert len(told) == 3  # by the frames that were wanted
    assert caplog.text.count("Skipping a broken clip: cut.mp4: frame") == 1
    assert "1 of 10 clips were broken and skipped." in caplog.text


def test_raise_stops_at_the_first_and_names_it(make_trainer):
    trainer = make_trainer(clips=CLIPS, workers=1, handlers=[BrokenClipsHandler(on_error="raise")])
    with pytest.raises(ClipReadError, match=r'^lost.mp4: no such clip \(use `on_error="skip"`'):
        trainer.run()


def test_more_than_the_share_stops_the_run(make_trainer):
    trainer = make_trainer(clips=CLIPS, handlers=[BrokenClipsHandler(on_error="skip", max_share=0.05)])
    with pytest.raises(ClipReadError, match="1 of 10 clips are broken, more than `max_broken_share`=5%: lost.mp4"):
        trainer.run()


def test_a_file_of_many_clips_counts_with_each(make_trainer):
    trainer = make_trainer(clips=CLIPS * 4, handlers=[BrokenClipsHandler(on_error="skip", max_share=0.05)])
    with pytest.raises(
        ClipReadError, match="[234] of 40 clips are broken, more than `max_broken_share`=5%: lost.mp4: no"
    ):
        trainer.run()


def test_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="`on_error` must be"):
        BrokenClipsHandler(on_error="ignore")
