# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import multiprocessing
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from numbered_videos import frames_of, number_of, write_video
from PIL import Image, features

from endofm_monai.data import ClipReadError, VideoReader, open_clip
from endofm_monai.data.readers.container import open_container, stated_end
from tests.data.readers.test_video_display import boxes

PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
}


def test_a_forked_process_leaves_the_threads_of_other_readers_alone(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", frames=8)
    reader = VideoReader(tmp_path / "clip.mp4", threads=2)
    reader.read([0])
    gc.disable()
    try:
        del reader  # a cycle, not closed
        worker = multiprocessing.get_context("fork").Process(target=gc.collect)
        worker.start()
        worker.join(30)
        assert worker.exitcode == 0
    finally:
        worker.kill()
        gc.enable()


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ""])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_reads_no_other_file(tmp_path: Path, kind: str, suffix: str) -> None:
    write_video(tmp_path / "secret.mp4", frames=2)
    path = tmp_path / f"list{suffix}"
    path.write_text(PLAYLISTS[kind])
    with pytest.raises(ClipReadError, match=rf"^{path}: is not a readable video \(\w.*\)$"):
        open_clip(path)


def test_the_playlist_would_be_followed_otherwise(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4", frames=2)
    (tmp_path / "list.mp4").write_text(PLAYLISTS["ffconcat"])
    with av.open(str(tmp_path / "list.mp4")) as container:
        assert container.format.name == "concat"


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "http://127.0.0.1/a.mp4", "frame%d.png", "data:,x", "pipe:0"])
def test_names_are_files_and_no_protocols(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "frame1.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(ClipReadError):
        VideoReader(tmp_path / name)


def test_only_containers_that_hold_their_frames_are_opened(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", frames=2)
    with open_container(str(path)) as container:
        formats = set(container.options["format_whitelist"].split(","))
        assert container.options["protocol_whitelist"] == "file"
    nested = {
        "concat",
        "hls",
        "dash",
        "imf",
        "sdp",
        "rtsp",
        "rtp",
        "image2",
        "image2pipe",
        "vobsub",
        "lavfi",
        "webm_dash_manifest",
    }
    assert not formats & nested


@pytest.mark.parametrize("first", [True, False])
def test_a_cover_is_no_video(tmp_path: Path, first: bool) -> None:
    source, path = write_video(tmp_path / "plain.mp4", frames=6), tmp_path / "cover.mp4"
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(opened.streams.video[0])
        picture = container.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 16, 16, "yuvj420p"
        picture.disposition = Disposition.attached_pic
        for packet in opened.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        container.mux(picture.encode(av.VideoFrame(16, 16, "yuvj420p")) + picture.encode())
    if first:  # its box before that of the track, as some players write it
        data = path.read_bytes()
        movie, size = boxes(data, 0, len(data))[b"moov"]
        inner = sorted(
            boxes(data, movie + 8, movie + size).items(), key=lambda box: (box[0] != b"mvhd", box[0] != b"udta")
        )
        moved = b"".join(data[start : start + length] for _, (start, length) in inner)
        path.write_bytes(data[: movie + 8] + moved + data[movie + size :])
    with av.open(str(path)) as container:
        assert bool(container.streams.video[0].disposition & Disposition.attached_pic) is first
    with VideoReader(path) as reader:
        assert [number_of(frame) for frame in frames_of(reader, range(6))] == [*range(6)]


@pytest.mark.parametrize(("suffix", "default", "expected"), [("mp4", {0}, 0), ("mkv", {1}, 1), ("mp4", {0, 1}, 1)])
def test_of_several_videos_the_default_or_else_the_larger_one_is_read(
    tmp_path: Path, suffix: str, default: set[int], expected: int
) -> None:
    sizes, path = [(64, 96), (160, 128)], tmp_path / f"several.{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25, width=width, height=height) for width, height in sizes]
        for place, stream in enumerate(streams):
            stream.disposition = Disposition.default if place in default else Disposition(0)
        for stream, size in zip(streams, sizes, strict=True):
            container.mux(stream.encode(av.VideoFrame(*size, "yuv420p")) + stream.encode())
    with VideoReader(path) as reader:
        assert (reader.probe().width, reader.probe().height) == sizes[expected]


def box(kind: bytes, *content: bytes, flags: bytes = b"") -> bytes:
    data = flags + b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_tile_of_a_picture_is_not_the_picture(tmp_path: Path, thumbnail: bool) -> None:
    """Of two tiles of 64 x 48, side by side, in the way of HEIC, perhaps with a thumbnail."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "tile.avif")
    data, zero, count = (tmp_path / "tile.avif").read_bytes(), bytes(4), 3 + thumbnail
    place = data.index(b"av1C") - 4
    codec, tile = data[place : place + int.from_bytes(data[place : place + 4], "big")], data[data.index(b"mdat") + 4 :]
    kinds = [b"grid", *[b"av01"] * (count - 1)]
    items = [box(b"infe", struct.pack(">HH", n, 0), k, b"\0", flags=b"\2\0\0\0") for n, k in enumerate(kinds, 1)]
    links = [box(b"dimg", struct.pack(">4H", 1, 2, 2, 3)), box(b"thmb", struct.pack(">3H", 4, 1, 1))][: 1 + thumbnail]
    sizes = [box(b"ispe", struct.pack(">II", *size), flags=zero) for size in ((128, 48), (64, 48))]
    uses = b"".join(struct.pack(">H", n) + (b"\1\1" if n == 1 else b"\2\2\x83") for n in range(1, count + 1))
    places = [struct.pack(">4HII", 1, 1, 0, 1, 0, 8)]
    places += [struct.pack(">4HII", n, 0, 0, 1, 32, len(tile)) for n in range(2, count + 1)]
    meta = [
        box(b"hdlr", zero, b"pict", bytes(13), flags=zero),
        box(b"pitm", b"\0\1", flags=zero),
        box(b"iloc", b"\x44\0", struct.pack(">H", count), *places, flags=b"\1\0\0\0"),
        box(b"iinf", struct.pack(">H", count), *items, flags=zero),
        box(b"iref", *links, flags=zero),
        box(b"iprp", box(b"ipco", *sizes, codec), box(b"ipma", struct.pack(">I", count), uses, flags=zero)),
        box(b"idat", struct.pack(">4BHH", 0, 0, 0, 1, 128, 48)),
    ]
    path = tmp_path / "tiles.heic"
    path.write_bytes(box(b"ftyp", b"avif", zero, b"avifmif1") + box(b"mdat", tile) + box(b"meta", *meta, flags=zero))
    with Image.open(path) as picture:
        assert picture.size == (128, 48)
    with pytest.raises(ClipReadError, match=r"tiles\.heic: is a picture in tiles"):
        open_clip(path)


def patch(path: Path, name: bytes, offset: int, value: bytes) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(name) + offset
    data[place : place + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize("cut", [1.0, 0.6])
@pytest.mark.parametrize(
    ("name", "field", "offset", "value"),
    [
        ("video.avi", b"strh", 8 + 32, struct.pack("<I", 0x7FFFFFFF)),
        ("video.mkv", b"\x44\x89\x88", 3, struct.pack(">d", 1e13)),
        ("video.mkv", b"\x44\x89\x88", 3, struct.pack(">d", float("inf"))),
        ("video.mkv", b"\x44\x89\x88", 3, struct.pack(">d", float("nan"))),
    ],
    ids=["strh", "duration", "infinite", "nan"],
)
def test_a_length_that_the_file_cannot_hold(
    tmp_path: Path, name: str, field: bytes, offset: int, value: bytes, cut: float
) -> None:
    path = write_video(tmp_path / name, "mpeg4", options={"g": "12"})
    size = path.stat().st_size
    patch(path, field, offset, value)
    path.write_bytes(path.read_bytes()[: int(cut * size)])
    with VideoReader(path) as reader:
        frames = reader.probe().frames
        assert frames == 48 if cut == 1 else frames < 200
        assert [number_of(frame) for frame in frames_of(reader, [0, 3])] == [0, 3]


def test_where_a_file_says_that_it_ends(tmp_path: Path) -> None:
    for name in ("video.avi", "video.mkv", "video.mp4"):
        path = write_video(tmp_path / name, "mpeg4", frames=5)
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-100])
        assert stated_end(str(path)) == (0 if name == "video.mp4" else size)
    for head in (b"\x1a\x45\xdf\xa3\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff", b"RIFF\xff\xff\xff\xffAVI "):
        path.write_bytes(head)
        assert stated_end(str(path)) == 0  # of unknown size


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.avi", "video.ts", "video.wmv"])
def test_changed_bytes_of_a_header(tmp_path: Path, name: str) -> None:
    codec = {"video.wmv": "wmv2", "video.avi": "mpeg4"}.get(name, "libx264")
    path = write_video(
        tmp_path / name, codec, frames=12, muxing={"movflags": "faststart"} if name == "video.mp4" else {}
    )
    data, draw = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(data)
        for place in draw.integers(0, min(len(data), 1500), draw.integers(1, 4)):
            changed[place] = draw.integers(256)
        path.write_bytes(changed)
        messages = []
        try:
            with open_clip(path) as reader:
                frames = reader.probe().frames
                assert 0 < frames < 2000
                assert (np.diff(reader.times()) > 0).all()
                reader.read([0, frames - 1])
        except ClipReadError as error:
            messages.append(str(error))
        assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)
