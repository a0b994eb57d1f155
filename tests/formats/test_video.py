# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import av
import numpy as np
import pytest

from endofm_monai.data import open_clip
from endofm_monai.formats.video import write_video


def ramp(frames: int, height: int, width: int) -> np.ndarray:
    """Gray frames that get brighter."""
    return np.stack([np.full((height, width, 3), 20 + 10 * index, np.uint8) for index in range(frames)])


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47)])
@pytest.mark.parametrize("fps", [25, 30000 / 1001, 0.4, 1 / 3600])
def test_video_reads_back(tmp_path, height, width, fps):
    frames = ramp(9, height, width)
    write_video(tmp_path / "new" / "clip.mp4", iter(frames), fps)
    with open_clip(tmp_path / "new" / "clip.mp4") as reader:
        info = reader.probe()
        assert (info.frames, info.height, info.width) == (9, height + height % 2, width + width % 2)
        assert info.fps == pytest.approx(fps, rel=1e-3)
        read = reader.read(range(9)).permute(1, 2, 3, 0).numpy()
    assert np.abs(read[:, :height, :width].astype(int) - frames).max() <= 3


@pytest.mark.parametrize("shape", [(20, 16390), (16400, 50)])
def test_a_side_that_cannot_be_encoded_is_scaled_down(tmp_path, shape):
    frames = np.zeros((2, *shape, 3), np.uint8)
    frames[:, shape[0] // 2 :, shape[1] // 2 :] = 200
    write_video(tmp_path / "clip.mp4", frames, 25)
    with open_clip(tmp_path / "clip.mp4") as reader:
        read = reader.read([1])[0, 0]
    assert max(read.shape) == 16384
    quarters = [part.float().mean().item() for half in read.chunk(2) for part in half.chunk(2, 1)]
    assert quarters == pytest.approx([0, 0, 0, 200], abs=5)


def test_players_get_yuv420p(tmp_path):
    write_video(tmp_path / "clip.mp4", ramp(2, 16, 16), 25)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 25, "no frame"),
        (ramp(1, 16, 16), 0, "`fps` must be positive"),
        (ramp(1, 16, 16).astype(np.float32), 25, "frame 0 must be uint8"),
        ([*ramp(1, 16, 16), *ramp(1, 16, 18)], 25, "frame 1 must be uint8"),
    ],
)
def test_what_is_no_video_is_refused_and_the_former_one_stays(tmp_path, frames, fps, message):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"former")
    with pytest.raises(ValueError, match=f"clip.mp4.*{message}"):
        write_video(path, frames, fps)
    assert path.read_bytes() == b"former"
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
