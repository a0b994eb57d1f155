# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Clips that are encoded."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageDraw
from small_sets import make_scene, prepare, write_frames

from endofm_monai.data import open_clip
from endofm_monai.preparation import SourceDataset, SourceVideo, prepare_dataset
from endofm_monai.preparation.encode import find_content_area

DATASET = SourceDataset("test set", "none")
HEIGHT, WIDTH = 240, 320
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RECTANGLE = (X >= 60) & (X < 300) & (Y >= 16) & (Y < 224)
SHAPES = {
    "full": np.ones((HEIGHT, WIDTH), bool),
    "rectangle": RECTANGLE,
    "octagon": RECTANGLE & (X + Y > 110) & (X + Y < 490) & (X - Y < 250) & (Y - X < 130),
    "circle": (X - 180) ** 2 + (Y - 120) ** 2 < 115**2,
}
CUT_CIRCLE = (X - 180) ** 2 + (Y - 120) ** 2 < 135**2  # the frame cuts it off above and below


def test_encoded_clips_are_resized_resampled_and_without_metadata(videos, tmp_path):
    manifest = prepare(videos, tmp_path, mode="encode", clip_seconds=1, short_side=36, crf=10)
    for entry in manifest["videos"]:
        for clip in entry["clips"]:
            path = tmp_path / clip["item"]["image"]
            first, last = clip["source"]
            assert last - first + 1 == 20
            with av.open(str(path)) as container:
                assert "Doe" not in str({**container.metadata, **container.streams.video[0].metadata})
            with open_clip(path) as reader, open_clip(videos / entry["source"][0]) as original:
                info = reader.probe()
                assert (info.frames, info.fps, info.height, info.width) == (30, 30.0, 36, 48)
                frames = reader.read(range(30)).float()
                expected = original.read([first + number * 2 // 3 for number in range(30)]).float()
            expected = expected.unflatten(2, (36, 2)).unflatten(4, (48, 2)).mean((3, 5))
            assert (frames - expected).mean(0).abs().mean() < 4  # brightness: color has half the resolution
            assert b"Doe" not in path.read_bytes()


def test_encoding_keeps_rate_and_size_on_request(videos, tmp_path):
    prepare(videos, tmp_path, mode="encode", fps=None, short_side=None)
    with open_clip(tmp_path / "clips" / "3.mp4") as reader:
        info = reader.probe()
    assert (info.frames, info.fps, info.height, info.width) == (40, 20.0, 72, 96)


def test_borders_are_cut_off_and_zones_are_blanked(tmp_path):
    frames = []
    for shift in range(12):
        frame = np.full((144, 200, 3), 3, np.uint8)
        frame[40:112, 60:156] = make_scene(1, shift)
        frame[5:9, 5:40] = 255
        frames.append(frame)
    write_frames(tmp_path / "in" / "0.mp4", frames)
    prepare(
        tmp_path / "in", tmp_path / "out", mode="encode", short_side=None, border="crop", blank=(0.3, 0.27, 0.4, 0.4)
    )
    with open_clip(tmp_path / "out/clips/0.mp4") as reader:
        clip = reader.read(range(12)).float()
    assert abs(clip.shape[2] - 72) <= 4
    assert abs(clip.shape[3] - 96) <= 4
    assert clip[:, :, 4:14, 4:16].mean() < 8
    assert clip[:, :, 30:].mean() > 60


def test_zones_are_black_up_to_their_last_pixel(tmp_path):
    frame = tmp_path / "in" / "0.png"
    frame.parent.mkdir()
    Image.fromarray(np.full((102, 85, 3), 200, np.uint8)).save(frame)
    options = {"mode": "encode", "crf": 0, "blank": (0.5, 0.25, 1, 0.75), "workers": 1, "stats": False}
    video = SourceVideo("0", [frame])
    prepare_dataset(DATASET, [video], frame.parent, tmp_path / "out", short_side=85 * 16, **options)
    with open_clip(tmp_path / "out/clips/0.mp4") as reader:
        picture = reader.read([0])[0, 0]
    assert picture.shape == (102 * 16, 85 * 16)
    assert picture[25 * 16 + 8 : 77 * 16 - 8, 42 * 16 + 8 :].max() < 8  # rows 25.5 to 76.5, columns 42.5 to 85
    assert picture[: 25 * 16 - 8].min() > 190


def test_what_is_outside_of_a_round_picture_is_blackened(tmp_path):
    y, x = np.mgrid[:160, :200]
    inside = (x - 100) ** 2 + (y - 80) ** 2 < 70**2
    frames = []
    for shift in range(8):
        picture = np.asarray(Image.fromarray(make_scene(2, shift)).resize((200, 160)))
        frame = np.where(inside[..., None], picture.clip(60), 0).astype(np.uint8)
        frame[14:18, 40:48] = 255  # text in the corner of the extent
        frames.append(frame)
    write_frames(tmp_path / "in" / "0.mp4", frames)
    for border, limit in (("crop", 100), ("mask", 12)):
        prepare(tmp_path / "in", tmp_path / border, mode="encode", short_side=None, border=border, crf=8)
        with open_clip(tmp_path / border / "clips/0.mp4") as reader:
            clip = reader.read(range(8)).float()
        corner = clip[:, :, :20, :20].amax()
        assert corner > limit if border == "crop" else corner < limit + 20
        assert clip[:, :, 60:80, 60:80].mean() > 50


def test_labels_a_frame_are_not_encoded_away(tmp_path, videos):
    labeled = [SourceVideo("a", videos / "0.mp4", frame_labels={"box": [[]] * 40})]
    with pytest.raises(ValueError, match="a: has masks or labels a frame"):
        prepare_dataset(SourceDataset("test set", "none"), labeled, videos, tmp_path / "out", workers=1, mode="encode")


def prepare_one(path, output, **options):
    """Encode one video with its own size, and give the frames ``(T, H, W, 3)`` before and after."""
    options = {"workers": 1, "stats": False, "mode": "encode", "short_side": None, "crf": 8, **options}
    prepare_dataset(DATASET, [SourceVideo("a", path)], path.parent, output, **options)
    return read_all(path), read_all(output / "clips/a.mp4")


def read_all(path):
    with open_clip(path) as reader:
        return reader.read(range(reader.probe().frames)).permute(1, 2, 3, 0).numpy().astype(int)


@pytest.mark.parametrize("fps", [30.0, None])
def test_frames_are_shown_at_their_times(tmp_path, fps):
    times = [90 * number if number < 30 else 2700 + 30 * (number - 30) for number in range(120)]  # 10, then 30 a second
    frames = [np.full((48, 64, 3), 2 * number, np.uint8) for number in range(120)]
    before, after = prepare_one(write_frames_at(tmp_path / "vfr.mp4", frames, times, 900), tmp_path / "out", fps=fps)
    expected = [number for number in range(30) for _ in range(3)] + list(range(30, 120))
    assert len(after) == 180
    np.testing.assert_allclose(after.mean((1, 2, 3)), before[expected].mean((1, 2, 3)), atol=1.5)


@pytest.mark.parametrize(("fps", "expected"), [(30.0, 60), (10.0, 20), (None, 48)])
def test_rounded_times_are_a_steady_rate(tmp_path, fps, expected):
    frames = [np.full((48, 64, 3), 5 * number, np.uint8) for number in range(48)]
    times = [round(number * 1000 * 1001 / 24000) for number in range(48)]  # milliseconds, as in Matroska
    _, after = prepare_one(write_frames_at(tmp_path / "ms.mkv", frames, times, 1000), tmp_path / "out", fps=fps)
    assert len(after) == expected
    places = np.round(np.arange(expected) * 48 / expected - 1e-6).clip(max=47)
    assert np.abs(after.mean((1, 2, 3)) - 5 * places).max() <= 8  # one frame, and what is lost


def test_the_last_frame_is_shown_however_many_were_dropped_before_it(tmp_path):
    times = [*range(20), *range(22, 42)]
    frames = [np.full((48, 64, 3), 5 * number, np.uint8) for number in times]
    _, after = prepare_one(write_frames_at(tmp_path / "dropped.mp4", frames, times, 25), tmp_path / "out", fps=25.0)
    np.testing.assert_allclose(after.mean((1, 2, 3)), [5 * min(n, 19 if n < 22 else n) for n in range(42)], atol=2)


def test_a_frame_an_hour_is_a_rate(tmp_path):
    frames = [np.full((48, 64, 3), 40 * number, np.uint8) for number in range(5)]
    path = write_frames_at(tmp_path / "lapse.mkv", frames, range(0, 5 * 3600, 3600), 1)
    _, after = prepare_one(path, tmp_path / "out", fps=None)
    np.testing.assert_allclose(after.mean((1, 2, 3)), range(0, 200, 40), atol=2)
    with open_clip(tmp_path / "out/clips/a.mp4") as reader:
        np.testing.assert_allclose(reader.times(), range(0, 5 * 3600, 3600))


def prepare_wide(tmp_path):
    """Prepare a video whose short side of 32 pixels makes another one of 19,200; and the sizes of what comes out."""
    for name, width in (("a", 2400), ("b", 8)):
        write_frames_at(tmp_path / f"{name}.mp4", [np.zeros((4, width, 3), np.uint8)] * 2, range(2), 30)
    videos = [SourceVideo(name, tmp_path / f"{name}.mp4") for name in "ab"]
    options = {"workers": 1, "stats": False, "mode": "encode", "short_side": 32}
    prepare_dataset(DATASET, videos, tmp_path, tmp_path / "out", **options)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    sizes = {}
    for path in (tmp_path / "out/clips").glob("*.mp4"):
        with open_clip(path) as reader:
            sizes[path.stem] = (reader.probe().height, reader.probe().width)
    return sizes, manifest["problems"]


def test_a_side_that_cannot_be_encoded_is_scaled_down(tmp_path):
    assert prepare_wide(tmp_path) == ({"a": (28, 16384), "b": (32, 64)}, [])


def test_a_video_that_cannot_be_encoded_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("endofm_monai.preparation.encode.MAX_VIDEO_SIDE", 1 << 20)
    sizes, (problem,) = prepare_wide(tmp_path)
    assert sizes == {"b": (32, 64)}
    assert problem == f"{tmp_path}/a.mp4: cannot be encoded (Generic error in an external library)"


COLORS = np.array([(200, 70, 60), (40, 80, 180), (10, 10, 10), (245, 245, 245)], np.uint8)  # mucosa, dye, dark, bright


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuvj420p"])
@pytest.mark.parametrize("space", [Colorspace.ITU601, Colorspace.ITU709, None])
def test_colors_stay_as_they_are_read(tmp_path, pix_fmt, space):
    frame = COLORS.repeat(16, 0)[None].repeat(48, 0)
    path = write_frames_at(tmp_path / "colors.mp4", [frame] * 5, range(5), 30, pix_fmt, space, {"crf": "5"})
    before, after = prepare_one(path, tmp_path / "out")
    for place, color in enumerate(COLORS):
        shown, encoded = (clip[0, 24, 16 * place + 8] for clip in (before, after))
        assert abs(shown - color).max() <= 4
        assert abs(encoded - shown).max() <= 3
    with av.open(str(tmp_path / "out/clips/a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_range) == (Colorspace.SMPTE170M, ColorRange.MPEG)


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(64, 45), (72, 128)), (Fraction(1, 2), (144, 90))])
def test_a_circle_stays_a_circle(tmp_path, aspect, size):
    y, x = np.mgrid[:72, :90]
    circle = ((x - 45) * float(aspect)) ** 2 + (y - 36) ** 2 < 20**2
    frames = [np.uint8(circle[..., None] * 255).repeat(3, -1)] * 3
    path = write_frames_at(tmp_path / "wide.mp4", frames, range(3), 30, aspect=aspect)
    with open_clip(path) as reader:
        assert reader.probe().pixel_aspect == pytest.approx(float(aspect))
    _, after = prepare_one(path, tmp_path / "out")
    assert after.shape[1:3] == size
    bright = after[0].mean(-1) > 128
    assert abs(int(bright.any(0).sum()) - int(bright.any(1).sum())) <= 2
    with open_clip(tmp_path / "out/clips/a.mp4") as reader:
        assert reader.probe().pixel_aspect == 1


def test_a_cover_picture_is_not_encoded(tmp_path):
    frames = [make_scene(1, shift) for shift in range(12)]
    path = write_frames_at(tmp_path / "cover.mp4", frames, range(12), 30, cover=True)
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    before, after = prepare_one(path, tmp_path / "out", border="crop")
    assert len(after) == 12
    assert abs(after - before).mean() < 6


def write_frames_at(path, frames, times, base, pix_fmt="yuv420p", space=None, options=None, aspect=None, cover=False):
    """Write frames at ``times / base`` seconds, with a color space that is stated, or BT.601 that is not."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options or {"crf": "8"})
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape[:2], pix_fmt
        codec = stream.codec_context
        codec.time_base = Fraction(1, base)
        color_range = ColorRange.JPEG if pix_fmt == "yuvj420p" else ColorRange.MPEG
        if space is not None:
            codec.colorspace, codec.color_range = 1 if space == Colorspace.ITU709 else 6, color_range
        if aspect:
            codec.sample_aspect_ratio = aspect
        if cover:
            picture = container.add_stream("mjpeg")
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, np.uint8))))
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(
                format=pix_fmt, dst_colorspace=space or Colorspace.ITU601, dst_color_range=color_range
            )
            frame.pts, frame.time_base = time, Fraction(1, base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if cover:
        path.write_bytes(put_cover_first(path.read_bytes()))
    return path


def put_cover_first(data):
    """Move ``udta`` to the front of an MP4 file's ``moov``: FFmpeg then lists the picture in it as the first stream."""

    def boxes(start, stop):
        while start < stop:
            size = int.from_bytes(data[start : start + 4], "big")
            yield data[start + 4 : start + 8], start, start + size
            start += size

    start, stop = next((start, stop) for kind, start, stop in boxes(0, len(data)) if kind == b"moov")
    inner = sorted(boxes(start + 8, stop), key=lambda box: (box[0] != b"mvhd", box[0] != b"udta"))
    return data[: start + 8] + b"".join(data[first:last] for _, first, last in inner) + data[stop:]


def write_scene(folder, mask, border=4, text=True, frames=6, noise=2):
    """Frames of a dark lumen that moves over bright tissue, with a patient's name beside it."""
    rng = np.random.default_rng(0)
    for number in range(frames):
        distance = np.hypot(X - 120 - 20 * number, Y - 120)
        tissue = np.clip(distance * 1.5, 8, 200)[..., None] * np.array([1, 0.6, 0.5])
        image = np.where(mask[..., None], tissue, border) + rng.normal(0, noise, (HEIGHT, WIDTH, 3))
        picture = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        if text:
            ImageDraw.Draw(picture).text((2, 100), "DOE", fill=(255, 255, 255))
            ImageDraw.Draw(picture).text((4, 226), "1960-01-01", fill=(255, 255, 255))
        picture.save(folder / f"{number}.png")
    return folder


def overlap(area, mask):
    return (area.mask & mask).sum() / (area.mask | mask).sum()


@pytest.mark.parametrize("border", [0, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_recognized_and_text_is_left_out(tmp_path, shape, border):
    with open_clip(write_scene(tmp_path, SHAPES[shape], border, text=shape != "full")) as reader:
        area = find_content_area(reader)
    assert area.shape == shape
    assert overlap(area, SHAPES[shape]) > 0.97
    if shape != "full":
        assert not area.mask[100:112, 2:22].any()
        left, top, right, bottom = area.box
        y, x = np.nonzero(SHAPES[shape])
        np.testing.assert_allclose([left, top, right, bottom], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=3)


def test_a_circle_that_the_frame_cuts_off(tmp_path):
    with open_clip(write_scene(tmp_path, CUT_CIRCLE)) as reader:
        area = find_content_area(reader)
    assert area.shape == "circle"
    assert overlap(area, CUT_CIRCLE) > 0.97


def test_black_frames_have_no_border(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "0.png")
    with open_clip(tmp_path) as reader:
        area = find_content_area(reader)
    assert (area.shape, area.box) == ("full", (0, 0, 64, 48))
