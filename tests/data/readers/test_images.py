# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from endofm_monai.data import ClipReadError, FramesReader, list_videos, open_clip, picture_size
from tests.support.pictures import write_gray_tiff, write_pages, write_turned

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)


def write_frames(folder: Path, pixels: Any = PIXELS) -> list[Path]:
    folder.mkdir()
    files = [folder / f"frame{number}.png" for number in range(len(pixels))]
    for file, frame in zip(files, pixels, strict=True):
        Image.fromarray(frame).save(file)
    return files


def test_folder_in_natural_order(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    reader = FramesReader(tmp_path / "clip", fps=24)
    info = reader.probe()
    assert (info.frames, info.fps, info.height, info.width, info.duration) == (12, 24, 5, 7, 0.5)
    clip = reader.read([11, 2, 2])
    assert clip.shape == (3, 3, 5, 7)
    np.testing.assert_array_equal(clip.permute(1, 2, 3, 0), PIXELS[[11, 2, 2]])


@pytest.mark.parametrize("suffix", ["jp2", "jpx", "j2k", "j2c", "ppm", "pnm"])
def test_lossless_formats_of_research(tmp_path: Path, suffix: str) -> None:
    picture = PIXELS[0].repeat(16, axis=0).repeat(16, axis=1)
    Image.fromarray(picture).save(tmp_path / f"1.{suffix}")
    np.testing.assert_array_equal(open_clip(tmp_path / f"1.{suffix}").read([0])[:, 0].permute(1, 2, 0), picture)
    assert len(list_videos(tmp_path, single_images=True)) == 1


@pytest.mark.parametrize("white", [4095, 65535])
def test_gray_pnm_of_16_bits_reaches_from_black_to_white(tmp_path: Path, white: int) -> None:
    values = np.linspace(0, white, 35).round().astype(">u2").reshape(5, 7)
    (tmp_path / "1.pgm").write_bytes(b"P5 7 5 %d\n" % white + values.tobytes())
    shown = open_clip(tmp_path / "1.pgm").read([0])[0, 0]
    np.testing.assert_array_equal(shown, (values.astype(int) * 65535 / white).round() // 256)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("png", "rgb24"), ("tiff", "rgb24")])
def test_pixels_have_the_shape_that_ffmpeg_states(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 32, 16, pix_fmt, Fraction(1, 25)
    encoder.sample_aspect_ratio = Fraction(64, 45)
    path = tmp_path / {"mjpeg": "1.jpg", "png": "1.png", "tiff": "1.tif"}[codec]
    path.write_bytes(b"".join(map(bytes, encoder.encode(av.VideoFrame(32, 16, pix_fmt)) + encoder.encode())))
    assert open_clip(path).probe().pixel_aspect == pytest.approx(64 / 45)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize(
    ("resolution", "turn", "aspect"), [((72, 144), 1, 2), ((72, 144), 6, 0.5), ((1, 300), 1, 1), ((96, 96), 1, 1)]
)
def test_pixels_have_the_shape_of_the_resolutions(
    tmp_path: Path, suffix: str, resolution: tuple[int, int], turn: int, aspect: float
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    Image.fromarray(PIXELS[0]).save(tmp_path / f"1.{suffix}", dpi=resolution, exif=exif)
    assert open_clip(tmp_path / f"1.{suffix}").probe().pixel_aspect == pytest.approx(aspect, rel=0.01)


def test_two_pictures_of_one_name_are_not_two_frames(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip")
    Image.fromarray(PIXELS[3]).save(tmp_path / "clip" / "frame3.jpg")
    with pytest.raises(ClipReadError, match=r"frame3\.png: has the name of frame3\.jpg: a mask beside its image"):
        open_clip(tmp_path / "clip")
    numbered = [shutil.copy(tmp_path / "clip" / "frame3.jpg", tmp_path / f"frame.{index}") for index in (1, 2)]
    assert open_clip(numbered).probe().frames == 2


@pytest.mark.parametrize("name", ["frame3_mask.png", "frame3-GT.png", "frame3_label.jpg"])
def test_masks_beside_their_images_are_no_frames(tmp_path: Path, name: str) -> None:
    write_frames(tmp_path / "clip")
    Image.fromarray(PIXELS[3]).save(tmp_path / "clip" / name)
    with pytest.raises(
        ClipReadError, match=rf"{name}: is named as a mask of frame3\.png; masks need a folder of their"
    ):
        open_clip(tmp_path / "clip")
    (tmp_path / "clip" / "frame3.png").unlink()
    assert open_clip(tmp_path / "clip").probe().frames == len(PIXELS)


def test_list_keeps_its_order(tmp_path: Path) -> None:
    files = write_frames(tmp_path / "clip")
    clip = FramesReader([files[3], str(files[1])]).read([0, 1])
    np.testing.assert_array_equal(clip.permute(1, 2, 3, 0), PIXELS[[3, 1]])


GRAY = PIXELS[0, ..., 0]
ALPHA = np.dstack([PIXELS[0], GRAY])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GRAY), np.dstack([GRAY] * 3)),
        (Image.fromarray(ALPHA), PIXELS[0]),
        (Image.fromarray(GRAY.astype(np.uint16) * 256 + 255), np.dstack([GRAY] * 3)),
        (Image.fromarray(PIXELS[0]).quantize(256), PIXELS[0]),
    ],
    ids=["gray", "alpha", "16 bits", "palette"],
)
def test_any_png_becomes_rgb(tmp_path: Path, image: Image.Image, expected: np.ndarray) -> None:
    image.save(tmp_path / "frame.png")
    np.testing.assert_array_equal(FramesReader([tmp_path / "frame.png"]).read([0])[:, 0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiff_of_16_bit_colors_is_read_or_named(tmp_path: Path, planes: str, compression: str | None) -> None:
    path, levels = tmp_path / "a.tif", PIXELS[0].astype(np.uint16) * 257
    stored = levels if planes == "contig" else levels.transpose(2, 0, 1)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planes, compression=compression)
    reader = FramesReader([path])
    if planes == "separate" and compression is None:
        with pytest.raises(ClipReadError, match=rf"^{path}: is not a readable image \(its colors of 16 bits lie plane"):
            reader.probe()
    else:
        np.testing.assert_array_equal(reader.read([0]).permute(1, 2, 3, 0)[0], PIXELS[0])


def test_image_is_turned_as_its_exif_data_ask(tmp_path: Path) -> None:
    for name in ("frame.png", "frame.tif", "frame.webp"):
        path = write_turned(tmp_path / name, PIXELS[0], **({"lossless": True} if name.endswith("webp") else {}))
        reader = FramesReader([path])
        assert (reader.probe().height, reader.probe().width) == picture_size(path)[::-1] == (5, 7)
        np.testing.assert_array_equal(reader.read([0])[:, 0].permute(1, 2, 0), PIXELS[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_tiff_stands_as_png_does(tmp_path: Path, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(GRAY.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(GRAY).convert(mode)
    for name in ("frame.png", "frame.tif"):
        image.save(tmp_path / name, exif=exif)
    frames = [FramesReader([tmp_path / name]).read([0])[:, 0].numpy() for name in ("frame.png", "frame.tif")]
    assert frames[0].shape[1:] == ((7, 5) if orientation > 4 else (5, 7))
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize("white", [0, 1], ids=["white is 0", "black is 0"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_gray_tiff_reaches_from_black_to_white(tmp_path: Path, bits: int, white: int) -> None:
    levels = np.linspace(0, 2**bits - 1, 24).astype(int).reshape(4, 6)
    path = write_gray_tiff(tmp_path / "frame.tif", levels, bits, white, orientation=6)
    if (bits, white) == (12, 0):  # Pillow knows none
        with pytest.raises(ClipReadError, match=rf"^{path}: is not a readable image"):
            FramesReader([path]).read([0])
        return
    expected = np.rot90(levels * 255 / (2**bits - 1), -1)
    frame = FramesReader([path]).read([0])[0, 0].numpy()
    assert np.abs(frame - (expected if white else 255 - expected)).max() <= 1
    assert (frame.min(), frame.max()) == (0, 255)


def test_signed_bytes_have_no_known_black(tmp_path: Path) -> None:
    path = write_gray_tiff(tmp_path / "frame.tif", np.zeros((4, 6), int), bits=8, kind=2)
    with pytest.raises(ClipReadError, match=rf"^{path}: is not a readable image \(its pixels are signed numbers"):
        FramesReader([path]).probe()


def test_frames_of_different_sizes_are_named(tmp_path: Path) -> None:
    files = write_frames(tmp_path / "clip", [PIXELS[0], PIXELS[1], PIXELS[2, :4]])
    reader = FramesReader(tmp_path / "clip")
    assert reader.read([0, 1]).shape == (3, 2, 5, 7)
    with pytest.raises(ClipReadError, match=rf"^{files[2]}: has 4x7 .* but {files[0]} of the same clip has 5x7$"):
        reader.read([0, 2])


def test_broken_frame_is_named(tmp_path: Path) -> None:
    files = write_frames(tmp_path / "clip")
    files[3].write_bytes(files[3].read_bytes()[:60])
    files[4].write_text("no image")
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "clip" / "frame12.tif")
    for index in (3, 4, 12):
        with pytest.raises(ClipReadError, match=rf"^{tmp_path}/clip/frame{index}\.\w+: is not a readable image \("):
            FramesReader(tmp_path / "clip").read([index])


def test_a_picture_has_no_more_pixels_than_its_file_can_hold(tmp_path: Path) -> None:
    Image.new("1", (3840, 2160)).save(tmp_path / "empty.tif", compression="group4")  # a mask: 568 bytes
    with open_clip(tmp_path / "empty.tif") as reader:
        assert reader.read([0]).shape == (3, 1, 2160, 3840)
    for side in (4096, 4100):
        Image.new("1", (side, side)).save(tmp_path / f"{side}.tif", compression="group4")
    with open_clip(tmp_path / "4096.tif") as reader:
        assert reader.read([0]).shape == (3, 1, 4096, 4096)
    with pytest.raises(ClipReadError, match=r"4100.tif: .*claims 4100x4100 pixels, more than its \d+ bytes can hold"):
        open_clip(tmp_path / "4100.tif").probe()


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ClipReadError, match=f"^{tmp_path}: holds no frame images$"):
        FramesReader(tmp_path)
    with pytest.raises(ClipReadError, match="holds no frame images"):
        FramesReader([])


PAGES = PIXELS[:6] // 128 * 255  # two levels, so that a GIF's palette can hold them


@pytest.mark.parametrize(
    ("name", "options", "fps"),
    [
        ("stack.tif", {}, 30),
        ("a.webp", {"lossless": True, "duration": [40, 120, 40, 120, 40, 120]}, 12.5),
        ("a.png", {"duration": 100}, 10),
        ("a.apng", {"duration": 100, "format": "PNG"}, 10),
        ("stand_in.png", {"duration": 100, "default_image": True}, 10),
        ("a.GIF", {"duration": 50}, 20),
    ],
)
def test_all_pages_of_one_file_are_frames(tmp_path: Path, name: str, options: dict[str, Any], fps: float) -> None:
    pages = [PAGES[-1], *PAGES] if "default_image" in options else PAGES  # a picture for those who play none
    path = write_pages(tmp_path / name, pages, **options)
    for source in (path, tmp_path):
        reader = open_clip(source)
        info = reader.probe()
        assert (info.frames, info.fps, info.height, info.width) == (6, fps, 5, 7)
        assert reader.times()[1] == pytest.approx(0.04 if name == "a.webp" else 1 / fps)
        np.testing.assert_array_equal(reader.read([4, 0, 5, 0]).permute(1, 2, 3, 0), PAGES[[4, 0, 5, 0]])


@pytest.mark.parametrize("disposal", [0, 1, 2])
def test_pages_are_taken_away_again_as_an_animation_asks(tmp_path: Path, disposal: int) -> None:
    pages = PIXELS[[0] * 6]
    for number in range(1, 6):
        pages[number, 1:3, number : number + 2] = PIXELS[number, 1:3, :2]
    path = write_pages(tmp_path / "a.apng", pages, format="PNG", disposal=[0, *[disposal] * 5], blend=1, duration=100)
    np.testing.assert_array_equal(read_all(path).transpose(1, 2, 3, 0), pages)


def test_a_frame_that_is_shown_for_no_time_is_shown_for_a_tenth_of_a_second(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.gif", PAGES, duration=[40, 40, 0, 10, 1000, 40])
    with open_clip(path) as reader:
        np.testing.assert_allclose(reader.times(), [0, 0.04, 0.08, 0.18, 0.28, 1.28])


@pytest.mark.parametrize(
    ("name", "metadata", "fps"),
    [
        ("a.tif", {"finterval": 0.1}, 10),
        ("a.tif", {"finterval": 50, "tunit": "ms"}, 20),
        ("a.tif", {"fps": 12.5}, 12.5),
        ("a.tif", {}, 30),
        ("a.ome.tif", {"TimeIncrement": 0.1, "TimeIncrementUnit": "s"}, 10),
        ("a.ome.tif", {}, 30),
    ],
)
def test_a_stack_has_the_rate_that_imagej_and_ome_state(
    tmp_path: Path, name: str, metadata: dict[str, Any], fps: float
) -> None:
    is_imagej = name == "a.tif"
    tifffile.imwrite(
        tmp_path / name, PIXELS, photometric="rgb", imagej=is_imagej, metadata={"axes": "TYXS", **metadata}
    )
    info = open_clip(tmp_path / name).probe()
    assert (info.frames, info.fps) == (12, pytest.approx(fps))


def test_stacks_whose_frames_are_not_their_pages_are_refused(tmp_path: Path) -> None:
    for name in ("a.tif", "a.ome.tif"):
        channels = {"photometric": "minisblack", "imagej": name == "a.tif", "metadata": {"axes": "TCYX"}}
        tifffile.imwrite(tmp_path / name, PIXELS.transpose(0, 3, 1, 2), **channels)
        with pytest.raises(ClipReadError, match=rf"/{name}: .*a frame has 3 pages, one a channel"):
            open_clip(tmp_path / name).probe()
    tifffile.imwrite(tmp_path / "long.tif", PIXELS[..., 0], imagej=True, truncate=True, metadata={"axes": "TYX"})
    with pytest.raises(ClipReadError, match=r"/long.tif: .*has 12 images, but only one page"):
        open_clip(tmp_path / "long.tif").probe()


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_stacks_whose_axes_nobody_named_are_frames(tmp_path: Path, name: str) -> None:
    """Of these tifffile calls the frames channels."""
    for pixels in (PIXELS, PIXELS[..., 0]):
        tifffile.imwrite(tmp_path / name, pixels, imagej=name == "a.tif")
        assert open_clip(tmp_path / name).probe().frames == 12


def test_what_imagej_said_of_another_file_is_no_reason_to_refuse_this_one(tmp_path: Path) -> None:
    """Tools that take pages out of a stack, or pack them, may keep its description."""
    stack = tmp_path / "a.tif"
    tifffile.imwrite(stack, PIXELS[..., 0], imagej=True, metadata={"axes": "TYX"})
    kept = tifffile.TiffFile(stack).pages[0].description
    tifffile.imwrite(stack, PIXELS[0], description=kept, metadata=None, tile=(16, 16))
    assert open_clip(stack).probe().frames == 1
    write_pages(stack, [0 * PIXELS[0], *PIXELS[1:4]], compression="tiff_lzw", description=kept)
    assert open_clip(stack).probe().frames == 4


def test_what_beside_pages_is_no_frame(tmp_path: Path) -> None:
    page, thumbnail = Image.fromarray(PIXELS[0]), Image.fromarray(PIXELS[0, :2, :2])
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "photo.tif", save_all=True, append_images=[thumbnail])
    page.save(tmp_path / "views.jpg", format="MPO", save_all=True, append_images=[thumbnail])
    for name in ("photo.tif", "views.jpg"):
        assert open_clip(tmp_path / name).probe().frames == 1
    write_pages(tmp_path / "sizes.tif", [PIXELS[0], PIXELS[1, :3]])
    with pytest.raises(ClipReadError, match=r"sizes\.tif: frame 1 has 3x7 pixels .* first frame has 5x7"):
        open_clip(tmp_path / "sizes.tif").read([0, 1])
    with pytest.raises(ClipReadError, match=r"sizes\.tif: holds several images, but is one of several files"):
        open_clip([tmp_path / "photo.tif", tmp_path / "sizes.tif"]).read([1])


def read_all(path: Path) -> np.ndarray:
    reader = open_clip(path)
    return reader.read(range(reader.probe().frames)).numpy()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", ["cut.tif", "cut.webp", "cut.png", "cut.gif"])
def test_pages_that_are_cut_off_are_missed(tmp_path: Path, name: str) -> None:
    path = write_pages(tmp_path / name, np.random.default_rng(1).integers(0, 256, (8, 40, 40, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ClipReadError, match=rf"^{path}: "):
        read_all(path)
