# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Gives damaged and hostile files to every door of the package, and counts what becomes of them.

Good is a result, or one line that names the file. Bad is anything else: another exception, a message without the name,
a dead process, more than 30 seconds or more than 4 GiB. Bad inputs are kept, and named in ``verdicts.json``.
"""

import io
import json
import logging
import multiprocessing
import random
import re
import resource
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import torch
from monai.utils import ensure_tuple
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from safetensors.torch import save_file

from endofm_monai import formats
from endofm_monai.data import ClipReadError, load_datalist, open_clip, read_mask
from endofm_monai.networks.nets import EndoFM
from endofm_monai.utils import run_from_command_line, write_json
from endofm_monai.weights import WeightsError, load_published, read_weights

MEMORY, SECONDS = 4 << 30, 30
NUMBERS = ("-1", "0", "1e999", "NaN", "2147483648", "99999999999999999999", "null", '"x"', "[]", "{}", "true")
INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def make_videos(folder: Path) -> None:
    """Small videos in the containers that recorders write."""
    frames = (np.indices((8, 48, 64)).sum(0)[..., None] * np.array([1, 2, 3]) % 256).astype(np.uint8)
    for suffix in ("mp4", "mkv", "avi", "ts", "mov"):
        formats.write_video(folder / f"video.{suffix}", frames, fps=8)


def make_dicom(folder: Path) -> None:
    """A multi-frame file of uncompressed colors."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID("1.2.840.10008.5.1.4.1.1.77.1.1.1")
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = FileDataset(str(folder / "video.dcm"), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns, data.NumberOfFrames, data.SamplesPerPixel, data.PlanarConfiguration = 24, 32, 4, 3, 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PhotometricInterpretation = 7, 0, "RGB"
    data.FrameTime, data.PixelData = "40", np.arange(4 * 24 * 32 * 3, dtype=np.uint32).astype(np.uint8).tobytes()
    data.save_as(folder / "video.dcm", enforce_file_format=True)


def make_volumes(folder: Path) -> None:
    """Clips as NIfTI, plain and compressed."""
    clip = np.arange(16 * 12 * 4, dtype=np.int16).reshape(16, 12, 4)
    for name in ("clip.nii", "clip.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(clip, np.eye(4)), folder / name)


def make_pictures(folder: Path) -> None:
    """Pictures in the formats that are read, of one frame and of several."""
    frames = [Image.fromarray(np.full((24, 32, 3), 40 * number, np.uint8)) for number in range(4)]
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        frames[0].save(folder / name)
    for name in ("many.tif", "many.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])


def make_masks(folder: Path) -> None:
    """Masks of one class: gray, and as a palette."""
    mask = np.zeros((24, 32), np.uint8)
    mask[5:15, 8:20] = 1
    Image.fromarray(mask * 255).save(folder / "mask.png")
    palette = Image.fromarray(mask, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(folder / "palette.png")


def make_lists(folder: Path) -> None:
    """A datalist of all that an item can hold."""
    item = {"image": "a.png", "label": 1, "mask": ["mask.png"], "box": [[[1, 2, 9, 9]]], "box_label": [[1]]}
    write_json(folder / "datalist.json", {"training": [item], "labels": {"1": "polyp"}})


def make_coco(folder: Path) -> None:
    """COCO annotations with a box, a polygon and runs."""
    image = {"id": 1, "file_name": "a.png", "width": 32, "height": 24}
    polygon = {"segmentation": [[2, 2, 9, 2, 9, 9]], "bbox": [2, 2, 7, 7], "area": 24, "iscrowd": 0}
    runs = {"segmentation": {"size": [24, 32], "counts": [100, 50, 618]}, "bbox": [4, 0, 3, 24], "iscrowd": 0}
    shapes = [{"id": n, "image_id": 1, "category_id": 1, **shape} for n, shape in enumerate((polygon, runs), start=1)]
    categories = [{"id": 1, "name": "polyp"}]
    write_json(folder / "coco.json", {"images": [image], "annotations": shapes, "categories": categories})


def make_cvat(folder: Path) -> None:
    """A task of a video in CVAT's XML, plain and zipped."""
    shapes = {0: formats.Shape("box", (1, 2, 9, 9)), 3: formats.Shape("box", (2, 2, 9, 9), outside=True)}
    task = formats.Annotations("video.mp4", 8, 64, 48, ["polyp"], [formats.Track("polyp", shapes, 0)])
    formats.write_cvat_xml(task, folder / "task.xml")
    with zipfile.ZipFile(folder / "task.zip", "w") as archive:
        archive.write(folder / "task.xml", "annotations.xml")


def make_weights(folder: Path) -> None:
    """Weights of a backbone in both layouts, and a checkpoint of a pre-training."""
    state = small_network().state_dict()
    torch.save(state, folder / "model.pt")
    save_file(state, folder / "model.safetensors")
    pair = {f"backbone.{name}": value for name, value in state.items()}
    torch.save({"teacher": pair, "student": pair, "epoch": 3}, folder / "checkpoint.pt")


def small_network() -> EndoFM:
    """The network that the weights fit."""
    return EndoFM(img_size=32, num_frames=2, embed_dim=8, depth=1, num_heads=2)


def read_clip(path: Path) -> None:
    """Read the ends and the middle of a clip."""
    with open_clip(path) as reader:
        frames = reader.probe().frames
        reader.read([0, frames // 2, frames - 1])


def read_coco(path: Path) -> None:
    """Read boxes and outlines."""
    formats.datalist_from_coco({"training": path}, ["polyp"], path.parent / "list.json", outlines=True)


DOORS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "video": (make_videos, read_clip),
    "dicom": (make_dicom, read_clip),
    "nifti": (make_volumes, read_clip),
    "pictures": (make_pictures, read_clip),
    "masks": (make_masks, read_mask),
    "datalists": (make_lists, lambda path: load_datalist(path.parent, path)),
    "coco": (make_coco, read_coco),
    "cvat": (make_cvat, lambda path: formats.items_from_annotations(formats.read_cvat_xml(path), ["polyp"])),
    "weights": (make_weights, lambda path: load_published(small_network(), path)),
    "checkpoints": (make_weights, read_weights),
}


def mutate(content: bytes, draw: random.Random, is_text: bool) -> bytes:
    """Damage a file in one to three ways."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(data) or 1)
        stop = min(len(data), start + draw.choice((1, 4, 16, 256)))
        way = draw.randrange(8 if is_text else 6)
        if way == 0:
            data[start:stop] = draw.randbytes(stop - start)
        elif way == 1:
            data[start:stop] = bytes(stop - start)
        elif way == 2:
            del data[start:]
        elif way == 3:
            del data[start:stop]
        elif way == 4:
            data[start:start] = data[start:stop] * draw.choice((1, 3, 100))
        elif way == 5:
            size, order = draw.choice((1, 2, 4)), draw.choice(("big", "little"))
            data[start : start + size] = (draw.choice(INTEGERS) & (256**size - 1)).to_bytes(size, order)
        else:  # a value of a text
            values = list(re.finditer(rb'(?<=[:\[,="> ])("[^"]*"|-?[\d.]+)(?=[,\]}"< ])', bytes(data)))
            if values:
                place = draw.choice(values)
                data[place.start() : place.end()] = draw.choice(NUMBERS).encode()
    return bytes(data)


def serve(door: str, connection: Connection) -> None:
    """Open the files that come by the connection, in a process whose memory is bounded; answer with the verdict."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, resource.RLIM_INFINITY))
    while True:
        path = connection.recv()
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                DOORS[door][1](path)
            connection.send("read")
        except (ClipReadError, WeightsError, ValueError, OSError) as error:
            text = str(error)
            is_good = path.name in text and "\n" not in text
            connection.send("refused" if is_good else f"bad message: {type(error).__name__}: {text}")
        except BaseException as error:
            connection.send(f"bad exception: {type(error).__name__}: {error}")


class Server:
    """A process that serves a door, made anew when it has died or hangs."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.process: Any = None

    def ask(self, path: Path) -> str:
        """The verdict on a file."""
        if self.process is None:
            context = multiprocessing.get_context("fork")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(self.door, theirs), daemon=True)
            self.process.start()
            theirs.close()
        try:
            self.connection.send(path)
            if self.connection.poll(SECONDS):
                return str(self.connection.recv())
            verdict = f"bad time: more than {SECONDS} seconds"
        except (EOFError, ConnectionError):
            self.process.join()
            verdict = f"bad end: exit code {self.process.exitcode}"
        self.stop()
        return verdict

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = None


def fuzz(seconds: float = 600, seed: int = 0, doors: Sequence[str] | None = None, output: str = "outputs/fuzz") -> str:
    """Damage files at random and give them to the doors in turn.

    Args:
        seconds: how long.
        seed: the same seed damages in the same way.
        doors: names of the doors; all by default.
        output: folder for bad inputs and ``verdicts.json``.

    Returns:
        the counts of the verdicts by door, as text; bad ones end the command with an error.
    """
    chosen, draw, kept = ensure_tuple(doors or DOORS), random.Random(seed), Path(output)
    counts: dict[str, Counter[str]] = {door: Counter() for door in chosen}
    bad: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        servers = {door: Server(door) for door in chosen}
        files: dict[str, list[Path]] = {}
        for door in chosen:
            (Path(folder) / door).mkdir()
            make_pictures(Path(folder) / door) if door in ("datalists", "coco") else None
            before = set((Path(folder) / door).iterdir())
            DOORS[door][0](Path(folder) / door)
            files[door] = sorted(set((Path(folder) / door).iterdir()) - before)
        originals = {path: path.read_bytes() for paths in files.values() for path in paths}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            door = draw.choice(chosen)
            path = draw.choice(files[door])
            damaged = mutate(originals[path], draw, path.suffix in (".json", ".xml"))
            path.write_bytes(damaged)
            verdict = servers[door].ask(path)
            counts[door][verdict.partition(":")[0]] += 1
            if verdict.startswith("bad"):
                kept.mkdir(parents=True, exist_ok=True)
                name = f"{len(bad):04d}_{door}{''.join(path.suffixes)}"
                (kept / name).write_bytes(damaged)
                bad.append({"file": name, "verdict": verdict})
            path.write_bytes(originals[path])
        for server in servers.values():
            server.stop()
    report = {"seed": seed, "inputs": sum(sum(count.values()) for count in counts.values()), "bad": bad}
    write_json(kept / "verdicts.json", {**report, "verdicts": {door: dict(count) for door, count in counts.items()}})
    text = "\n".join(f"{door:12}" + json.dumps(dict(count)) for door, count in counts.items())
    text += f"\n{report['inputs']} inputs, {len(bad)} bad; see {kept / 'verdicts.json'}"
    if bad:
        raise SystemExit(text)
    return text


if __name__ == "__main__":
    run_from_command_line(fuzz)
