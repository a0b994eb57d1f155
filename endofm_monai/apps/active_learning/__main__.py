# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Command that chooses the frames of videos to annotate next; see docs/active_learning.md."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endofm_monai.apps.active_learning.selection import clip_windows, select_frames
from endofm_monai.apps.active_learning.token_cache import encode_frames
from endofm_monai.data import join_frames, load_datalist, open_clip
from endofm_monai.inferers.frame_models import open_frame_model
from endofm_monai.networks.nets import EndoFM
from endofm_monai.preparation.prepare import run_from_command_line
from endofm_monai.utils import atomic_path
from endofm_monai.weights import initialize_backbone

__all__ = ["choose_frames"]


def choose_frames(
    dataset_dir: str,
    output: str,
    count: int = 20,
    bundle: str | None = None,
    backbone_weights: str | None = None,
    datalist: str | None = None,
    section: str = "training",
    labeled: str = "",
    window: int = 8,
    preset: str = "base",
    patch_size: int = 16,
    size: int = 224,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Choose the frames to annotate next, and write them to a JSON file.

    With a ``bundle`` uncertain frames are chosen, with ``backbone_weights`` frames that differ, with both frames that
    do both, and with neither random ones.

    Args:
        dataset_dir: folder with videos or folders of frame images.
        output: the file, a list of ``image``, ``frame`` (counted from 0), ``clip`` (the window around it), and
            ``uncertainty`` with a bundle.
        count: how many frames.
        bundle: folder of a trained bundle, of any of the three tasks, whose uncertainty counts.
        backbone_weights: weights of the pre-trained backbone, whose class tokens tell how much frames differ.
        datalist: JSON file, see ``endofm_monai.data.load_datalist``; by default all clips below ``dataset_dir``.
        section: section of the datalist.
        labeled: files that this command wrote before, separated by commas, whose frames have been annotated.
        window: frames of a window, of which one at most is annotated.
        preset: size of the backbone.
        patch_size: pixels of a patch of the backbone.
        size: height and width that frames are resized to for the backbone.
        device: where to compute.
        seed: seed of the draws.

    Returns:
        what was written.

    Raises:
        ValueError: when a file of ``labeled`` has a frame that is not among the videos.
    """
    root = os.path.realpath(dataset_dir)
    images = [item["image"] for item in load_datalist(dataset_dir, datalist, section, label_key="")]
    frames: list[tuple[str, int]] = []
    lengths: dict[str, int] = {}
    for image in images:
        with open_clip(image) as reader:
            length = reader.probe().frames
        name = os.path.relpath(image if isinstance(image, str) else os.path.dirname(image[0]), root)
        lengths[name] = length
        frames += [(name, index) for index in range(length)]
    done = [
        _place(entry, frames, file)
        for file in filter(None, labeled.split(","))
        for entry in json.loads(Path(file).read_text())
    ]
    scores = embeddings = None
    if bundle is not None:
        model = open_frame_model(bundle, device)
        scores = [model.uncertainty(answer) for image in images for answer in model.answers(image)]
    if backbone_weights is not None:
        backbone = EndoFM.from_preset(preset, img_size=size, patch_size=patch_size)
        initialize_backbone(backbone, backbone_weights).to(torch.device(device))
        features = (part for image in images for part in encode_frames(image, backbone, size))
        embeddings = np.concatenate([part.class_token.numpy() for part in features])
    chosen = select_frames(scores, embeddings, count, clip_windows(lengths, window), done, seed)
    entries = []
    for index in chosen:
        name, frame = frames[index]
        first = frame // window * window
        clip = join_frames(name, first, min(first + window, lengths[name]) - 1)
        entries.append({"image": name, "frame": frame, "clip": clip})
        if scores is not None:
            entries[-1]["uncertainty"] = round(scores[index], 5)
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return entries


def _place(entry: dict[str, Any], frames: list[tuple[str, int]], file: str) -> int:
    key = (entry["image"], entry["frame"])
    if key not in frames:
        raise ValueError(f"{file}: frame {key[1]} of {key[0]} is not among the videos.")
    return frames.index(key)


if __name__ == "__main__":
    run_from_command_line(choose_frames)
