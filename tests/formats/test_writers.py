# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import gzip
import json
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import av
import itk
import nibabel
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace
from monai.data import NibabelWriter
from PIL import Image

from endofm_monai.data import ClipInfo, open_clip
from endofm_monai.formats import BOX_WRITERS, MASK_WRITERS, VideoOutput, read_coco_masks, write_video

HEIGHT, WIDTH = 60, 80
HERE, MOVED, FAR = [10.0, 20.0, 40.0, 50.0], [12.0, 20.0, 42.0, 52.0], [60.0, 5.0, 75.0, 20.0]


def detections(*found):
    """Detections from triples of box, class and score."""
    return {
        "box": torch.tensor([box for box, _, _ in found]).reshape(-1, 4),
        "label": torch.tensor([label for _, label, _ in found], dtype=torch.long),
        "label_scores": torch.tensor([score for _, _, score in found]),
    }


ANSWERS = [
    detections((HERE, 1, 0.9), (FAR, 2, 0.7)),
    detections((MOVED, 1, 0.8), (FAR, 1, 0.499996)),  # below the threshold
    detections(),
    detections((HERE, 1, 0.6)),
]


def write_all(writers, folder, answers, frames=None, broken=False, formats=None):
    """Write answers in all formats at once, for black frames."""
    frames = np.zeros((len(answers), HEIGHT, WIDTH, 3), np.uint8) if frames is None else frames
    count, height, width, _ = frames.shape
    info = ClipInfo(count, 25.0, height, width, count / 25)
    names = [f"f{index}" for index in range(count)]
    output = VideoOutput(folder, "colon/a", names, info, ("adenoma", "hyperplastic"), threshold=0.5)
    with ExitStack() as stack:
        opened = [stack.enter_context(writers[name](output)) for name in formats or writers]
        for index, (frame, answer) in enumerate(zip(frames, answers, strict=True)):
            for write in opened:
                write(index, frame, answer)
        if broken:
            raise KeyError("broken")
    return folder


@pytest.fixture(scope="module")
def boxes(tmp_path_factory) -> Path:
    """Folder of the four box formats."""
    return write_all(BOX_WRITERS, tmp_path_factory.mktemp("boxes"), ANSWERS)


def test_tables_hold_every_detection(boxes):
    results = json.loads((boxes / "detections.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in results] == [(1, 1), (1, 2), (2, 1), (2, 1), (4, 1)]
    assert results[0]["bbox"] == [10, 20, 30, 30]
    assert results[1]["score"] == pytest.approx(0.7)
    assert (boxes / "detections.json").read_text() == json.dumps(results, indent=1)
    with open(boxes / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "0", "1", "1", "3"]
    assert rows[1]["class"] == "hyperplastic"
    assert [float(rows[2][side]) for side in ("x1", "y1", "x2", "y2")] == MOVED
    assert {row["video"] for row in rows} == {"colon/a"}
    for scores in ([result["score"] for result in results], [float(row["score"]) for row in rows]):
        # whoever takes the threshold once more, as the page of `endofm predict`, finds what the others show
        assert [np.float32(score) >= 0.5 for score in scores] == [True, True, True, False, True]
        assert np.float32(scores) == pytest.approx(np.float32([0.9, 0.7, 0.8, 0.499996, 0.6]), abs=0)


def test_cvat_gets_a_track_a_polyp(boxes):
    root = ElementTree.parse(boxes / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == "4"
    assert [root.findtext(f"meta/task/original_size/{side}") for side in ("width", "height")] == ["80", "60"]
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == ["adenoma", "hyperplastic"]
    tracks = [
        (track.get("label"), [(int(box.get("frame")), box.get("outside")) for box in track.iterfind("box")])
        for track in root.iterfind("track")
    ]
    assert tracks == [
        ("adenoma", [(0, "0"), (1, "0"), (2, "1")]),
        ("hyperplastic", [(0, "0"), (1, "1")]),
        ("adenoma", [(3, "0")]),  # the video ends with it
    ]
    assert root.find("track/box").attrib["xbr"] == "40.00"


def test_overlay_shows_likely_boxes_at_their_place(boxes):
    with open_clip(boxes / "overlay.mp4") as reader:
        frames = reader.read(range(4)).float()
    assert (reader.probe().frames, reader.probe().fps) == (4, 25)
    bright = frames.amax(dim=0) > 60
    assert bright[0, 20:50, 10:40].any()
    assert bright[0, 5:20, 60:75].any()
    assert not bright[1, 5:20, 60:75].any()  # a score of 0.1
    assert not bright[2].any()
    assert not bright[0, 38:46, 15:35].any()  # only the outline, and the text at its top


def test_nothing_detected_is_written_too(tmp_path):
    write_all(BOX_WRITERS, tmp_path, [detections()] * 3)
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert len((tmp_path / "detections.csv").read_text().splitlines()) == 1
    assert ElementTree.parse(tmp_path / "annotations.xml").getroot().find("track") is None
    with open_clip(tmp_path / "overlay.mp4") as reader:
        assert reader.probe().frames == 3


MASKS = np.zeros((5, 20, 30), bool)
for index in range(4):
    MASKS[index, 4:9, 3 + index : 12] = MASKS[index, 15, 20:29] = True


def masks_as_answers(masks):
    return [{"mask": torch.from_numpy(mask[None]).byte()} for mask in masks]


def test_masks_are_the_same_in_all_formats(tmp_path):
    frames = np.zeros((5, 20, 30, 3), np.uint8)
    write_all(MASK_WRITERS, tmp_path, masks_as_answers(MASKS), frames)
    assert {path.name for path in tmp_path.iterdir()} == {"masks", "masks.nii.gz", "masks.json", "overlay.mp4"}
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"f{index}.png" for index in range(5)]
    for index, mask in enumerate(MASKS):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / f"f{index}.png")), mask * 255)

    volume = nibabel.load(tmp_path / "masks.nii.gz")
    assert volume.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(volume.dataobj).transpose(2, 1, 0), MASKS)
    image = itk.imread(str(tmp_path / "masks.nii.gz"))
    np.testing.assert_array_equal(itk.array_from_image(image), MASKS.astype(np.uint8))
    np.testing.assert_array_equal(itk.array_from_matrix(image.GetDirection()), np.eye(3))

    coco = json.loads((tmp_path / "masks.json").read_text())
    assert [entry["file_name"] for entry in coco["images"]] == [f"f{index}" for index in range(5)]
    assert [(entry["id"], entry["image_id"]) for entry in coco["annotations"]] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    for annotation in coco["annotations"]:
        runs = annotation["segmentation"]["counts"]
        mask = np.repeat(np.arange(len(runs)) % 2, runs).reshape(annotation["segmentation"]["size"], order="F")
        np.testing.assert_array_equal(mask, MASKS[annotation["image_id"] - 1])
        assert annotation["area"] == mask.sum()
        x, y, width, height = annotation["bbox"]
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
    for index, (frame, name, mask) in enumerate(read_coco_masks(tmp_path / "masks.json")):
        assert (frame, name) == (index, "adenoma")
        np.testing.assert_array_equal(mask, MASKS[index])
    assert index == 3

    with open_clip(tmp_path / "overlay.mp4") as reader:
        shown = reader.read(range(5)).amax(dim=0) > 60
    assert (shown.numpy() == MASKS).mean() > 0.95


def test_no_foreground_is_written_too(tmp_path):
    write_all(MASK_WRITERS, tmp_path, masks_as_answers(np.zeros((3, 16, 16), bool)), np.zeros((3, 16, 16, 3), np.uint8))
    coco = json.loads((tmp_path / "masks.json").read_text())
    assert (len(coco["images"]), coco["annotations"]) == (3, [])
    assert not [*read_coco_masks(tmp_path / "masks.json")]
    assert np.asarray(nibabel.load(tmp_path / "masks.nii.gz").dataobj).sum() == 0


@pytest.mark.parametrize("writers", [BOX_WRITERS, MASK_WRITERS])
def test_an_error_leaves_nothing_and_the_former_files_stay(tmp_path, writers):
    answers = [{**ANSWERS[0], **masks_as_answers(np.ones((1, HEIGHT, WIDTH), bool))[0]}] * 2
    with pytest.raises(KeyError, match="broken"):
        write_all(writers, tmp_path, answers, broken=True)
    assert not [*tmp_path.iterdir()]
    write_all(writers, tmp_path, answers)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(KeyError, match="broken"):
        write_all(writers, tmp_path, [*answers, answers[0]], broken=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before
    write_all(writers, tmp_path, answers[:1])  # and fewer frames take the place of more
    assert len([*(tmp_path / "masks").iterdir()] if writers is MASK_WRITERS else [0]) == 1


def write_volume(folder: Path, frames: int) -> Path:
    """Masks in which frame ``i`` has the pixel of row 2 and column ``i % 5`` set."""
    masks = np.zeros((frames, 4, 6), bool)
    masks[range(frames), 2, np.arange(frames) % 5] = True
    write_all(MASK_WRITERS, folder, masks_as_answers(masks), np.zeros((frames, 4, 6, 3), np.uint8), formats=["nifti"])
    return folder / "masks.nii.gz"


def test_volume_is_that_of_monais_writer(tmp_path):
    path = write_volume(tmp_path, frames=7)
    volume = np.asarray(nibabel.load(path).dataobj)
    writer = NibabelWriter(output_dtype=np.uint8)
    writer.set_data_array(volume, channel_dim=None)
    writer.set_metadata({"affine": np.diag([-1.0, -1.0, 1.0, 1.0])}, resample=False)
    writer.write(tmp_path / "monai.nii.gz")
    assert volume.sum() == volume[:5, 2].sum() == 7
    assert gzip.decompress(path.read_bytes()) == gzip.decompress((tmp_path / "monai.nii.gz").read_bytes())


def test_volume_of_more_frames_than_nifti_1_can_count(tmp_path):
    image = nibabel.load(write_volume(tmp_path, frames=32_768))
    assert (type(image), image.shape) == (nibabel.Nifti2Image, (6, 4, 32_768))
    assert np.asarray(image.dataobj[32_767 % 5, 2, 32_767]) == 1


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


def test_players_are_told_the_colors_and_the_shape_of_pixels(tmp_path):
    """Without being told, players show HD videos by another matrix: this red as 212, 54, 36."""
    colors = np.full((2, 576, 720, 3), (200, 40, 40), np.uint8)
    info = ClipInfo(2, 25.0, 576, 720, 0.08, pixel_aspect=64 / 45)
    with MASK_WRITERS["overlay"](VideoOutput(tmp_path, "pal", ["0", "1"], info)) as write:
        for index, frame in enumerate(colors):
            write(index, frame, {"mask": torch.zeros(1, 576, 720, dtype=torch.uint8)})
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_range) == (Colorspace.SMPTE170M, ColorRange.MPEG)
    with open_clip(tmp_path / "overlay.mp4") as reader:
        assert reader.probe().pixel_aspect == pytest.approx(64 / 45)
        assert (reader.read([1])[:, 0].float().mean((1, 2)) - torch.tensor([200, 40, 40])).abs().max() <= 3


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
