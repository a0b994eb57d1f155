# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from endofm_monai.data import chunk_clips, chunk_frames, open_clip
from endofm_monai.formats.video import write_video
from endofm_monai.inferers import TemporalWindowInferer


def whole_window_network(clip: torch.Tensor) -> torch.Tensor:
    """Each frame's result depends on the place in the window and on all its frames."""
    return clip.cumsum(2) + clip.mean(2, keepdim=True) + torch.arange(clip.shape[2]).view(1, 1, -1, 1, 1)


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (8, 2), (6, 3), (8, 8), (4, 1)])
@pytest.mark.parametrize("extra", [0, 3, 13])
def test_chunks_give_what_the_whole_clip_gives(window, stride, extra):
    infer = TemporalWindowInferer(window, stride)
    for frames in [*range(1, 4 * window), 97]:
        clip = torch.rand(1, 1, frames, 1, 1)
        parts, longest = [], 0
        for start, stop, first, end in chunk_frames(frames, 2 * window + extra, window, stride):
            longest = max(longest, stop - start)
            parts.append(infer(clip[:, :, start:stop], whole_window_network)[:, :, first - start : end - start])
        torch.testing.assert_close(torch.cat(parts, 2), infer(clip, whole_window_network))
        assert longest < 2 * window + extra + stride


@pytest.mark.parametrize(("chunk", "window", "stride"), [(32, 8, 3), (15, 8, 4)])
def test_chunks_that_cannot_be_put_together_are_refused(chunk, window, stride):
    with pytest.raises(ValueError, match="`window` must be a multiple of `stride`"):
        list(chunk_frames(100, chunk, window, stride))


def test_clips_of_all_kinds_are_cut(tmp_path):
    frames = [np.full((16, 16, 3), 5 * index, np.uint8) for index in range(40)]
    write_video(tmp_path / "clip.mp4", frames, 25, crf=0)
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames[:20]):
        Image.fromarray(frame).save(tmp_path / "images" / f"{index}.png")
    clips = [
        str(tmp_path / "clip.mp4"),
        f"{tmp_path / 'clip.mp4'}#frames=10-29",
        str(tmp_path / "images"),
        str(tmp_path / "images" / "3.png"),
        str(tmp_path / "lost.mp4"),
    ]
    chunks = chunk_clips([{"image": clip, "name": clip} for clip in clips], chunk=16, window=8, stride=4)
    for clip, first_value, length in zip(clips[:4], (0, 50, 0, 15), (40, 20, 20, 1), strict=True):
        seen = []
        for item in chunks:
            if item["name"] == clip:
                assert item["num_frames"] == length
                first, end, start, stop = item["core"]
                assert first == len(seen)
                with open_clip(item["image"]) as reader:
                    values = reader.read(range(reader.probe().frames))[0, :, 8, 8].tolist()
                seen += values[start:stop]
                assert end == len(seen)
        assert np.abs(np.array(seen) - (first_value + 5 * np.arange(length))).max() <= 3
    assert chunks[-1]["image"].endswith("lost.mp4")
    assert len([item for item in chunks if item["num_frames"] == 0]) == 1
