# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Commands between CVAT and the project; see docs/cvat.md."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from endofm_monai import formats
from endofm_monai.apps.cvat.answers import open_annotator
from endofm_monai.data import (
    check_boxes,
    clip_images,
    common_size,
    first_frame,
    join_frames,
    load_datalist,
    mask_files,
    open_clip,
    split_frames,
)
from endofm_monai.data.datalist import check_video, resolve_path
from endofm_monai.data.labels import check_box, check_order
from endofm_monai.formats import Annotations, Shape, Tag, Track
from endofm_monai.formats.annotations import named
from endofm_monai.utils import as_class_names, atomic_path, check_writable, run_from_command_line, write_json
from endofm_monai.utils.settings import check_number


def annotate(
    video: str,
    bundle: str,
    output: str,
    threshold: float | None = None,
    device: str = "cpu",
    mode: str = "offline",
    **options: Any,
) -> None:
    """Annotate a video for CVAT: tracks of boxes or polygons, or tags where the class changes.

    Args:
        video: a video file or a folder of frame images.
        bundle: folder of a bundle, with weights.
        output: XML file to write, for ``cvat-cli task import-dataset``.
        threshold: smallest score; by default the bundle's.
        device: where to compute.
        mode: ``"offline"``, as the bundle's inference, or ``"online"``, which looks at no later frame.
        options: ``max_gap``, frames in a row in which a polyp may be missed (5); ``iou``, smallest overlap of its boxes
            in two frames (0.3); ``tolerance``, pixels from a polygon to the mask's outline (1); ``min_area``, pixels of
            the smallest polygon (64).
    """
    if threshold is not None:
        check_number("threshold", threshold)
    check_writable(Path(output).parent)
    if Path(output).is_dir():
        raise IsADirectoryError(f"{output}: is a folder, expected the XML file to write")
    annotator = open_annotator(bundle, device, mode, **options)
    kind = "box" if annotator.kind == "rectangle" else annotator.kind
    tracks: dict[tuple[str, int], dict[int, Shape]] = defaultdict(dict)
    tags: dict[int, list[Tag]] = {}
    last, unsaid = list[str](), 0  # classes, and frames without one
    with open_clip(video) as reader:
        info = reader.probe()
        for frame, (_, answer) in enumerate(annotator.predictor(reader)):
            found = annotator.draw(answer, threshold)
            for each in found:
                if each.track is not None:
                    tracks[each.label, each.track][frame] = Shape(kind, each.points)
            names = [each.label for each in found if each.track is None]
            unsaid += bool(last) and not names
            if names and names != last:
                tags[frame] = [Tag(name, source="auto") for name in names]
                last = names
    joined = [
        Track(label, formats.end_gaps(shapes, info.frames, bridge=True), number, source="auto")
        for number, ((label, _), shapes) in enumerate(tracks.items())
    ]
    name, size = Path(split_frames(video)[0]).name, (info.frames, info.width, info.height)
    task = Annotations(name, *size, list(annotator.labels), joined, tags, source=name, start=first_frame(video))
    formats.write_cvat_xml(task, output)
    print(f"{output}: {len(joined)} tracks and {len(tags)} tags in {info.frames} frames")
    if unsaid:
        print(f"In {unsaid} frames no class reaches the threshold: as tags have no end, they keep the one before.")


def from_cvat(
    *files: str,
    dataset_dir: str,
    output: str,
    class_names: Sequence[str] = ("polyp",),
    image: str | None = None,
    section: str = "training",
    tags: str | None = None,
    masks: str | None = "masks",
) -> None:
    """Make a datalist of CVAT's exports, with the mask files for its outlines.

    Writes ``output`` for detection and segmentation, and for classification ``<output>_tags.json``, if there are tags;
    else that of an earlier run goes. Where anything has an outline, what shows nothing at all has empty mask files.

    Args:
        files: XML files or zips of CVAT, one a task, or one a job that overlaps no other.
        dataset_dir: folder with the videos or images.
        output: datalist to write.
        class_names: names of the classes of boxes and outlines, in the order of their labels.
        image: path of the video in the folder, or of the folder of the images; by default their names in CVAT.
        section: section of the datalist.
        tags: for one file that was exported "for video": an export "for images" of the same task, with the tags.
        masks: folder in ``dataset_dir`` for mask files; None writes none.
    """
    if not files:
        raise ValueError("There is no file of CVAT: name its XML files or zips.")
    if tags and len(files) != 1:
        raise ValueError(f"`tags` belongs to one file, but there are {len(files)}.")
    names = as_class_names(class_names)
    found: dict[str, tuple[dict[str, Any], Annotations]] = {}  # by the folder of their masks
    videos: dict[str, tuple[str, bool]] = {}  # file of each, and whether it is in parts
    seen: dict[str, str] = {}  # file of each frame
    for file in files:
        annotations = formats.join_tracks(formats.read_cvat_xml(file))
        if tags:
            annotations = formats.merge_tags(annotations, formats.read_cvat_xml(tags))
        annotations, frames = _fit_to_file(annotations, dataset_dir, image, file)
        for item in formats.items_from_annotations(annotations, names, image, frames):
            source, part = split_frames(item["image"]) if not annotations.images else ("", None)
            check_video(item["video"], f"{file}: task")  # before masks lie where it says
            name = item["video"] + (f"_{part[0]}-{part[1]}" if part else "")
            if name in found or videos.setdefault(item["video"], (source, bool(part))) != (source, bool(part)):
                what = f"is another task named {item['video']!r}, and not another part of its video"
                raise ValueError(f"{file}: {what}; their results would be the same files.")
            _check_frames(item, source, file, seen)
            found[name] = item, annotations
    clips = formats.tagged_clips([item for item, _ in found.values()])
    has_masks = masks and any(any(item["outline"]) for item, _ in found.values())
    items = []
    for name, (item, task) in found.items():
        _tell_what_is_drawn(name, item, names)
        if has_masks and (any(item["outline"]) or not any(item["box"])):
            item = formats.write_masks(item, dataset_dir, f"{masks}/{name}", task.height, task.width)
        items.append(item)
    _check_then_write(output, {"labels": dict(enumerate(names, start=1)), section: items}, dataset_dir, section)
    of_tags = Path(output).with_name(f"{Path(output).stem}_tags.json")
    of_tags.unlink(missing_ok=True)  # an earlier run's
    if clips:
        write_json(of_tags, {section: clips}, indent=1)
    boxes, outlines = (sum(len(frame) for item in items for frame in item[key]) for key in ("box", "outline"))
    print(f"{output}: {len(items)} videos, {boxes} boxes, {outlines} outlines, {len(clips)} clips with a tag")


def _check_frames(item: dict[str, Any], source: str, file: str, seen: dict[str, str]) -> None:
    """Check the boxes of frames, of the video ``source`` or images, which no file before, ``seen``, may have had."""
    start = first_frame(item["image"])
    for number, boxes in enumerate(item["box"], start):
        frame = join_frames(source, number, number) if source else item["image"][number - start]
        if (other := seen.setdefault(frame, file)) != file:
            advice = "a frame can have one annotation: of jobs that overlap export the task"
            raise ValueError(f"{file}: has {frame}, as {other} has; {advice}.")
        for box in boxes:
            check_box(box, f"{file}: frame {number}")


def _tell_what_is_drawn(name: str, item: dict[str, Any], class_names: Sequence[str]) -> None:
    """Say what a training would not take as it was meant."""
    labels = sorted({outline["label"] for outlines in item["outline"] for outline in outlines})
    if len(labels) > 1:
        classes = ", ".join(class_names[label - 1] for label in labels)
        print(f"{name}: outlines are of the classes {classes}, but masks have one foreground: of all of them.")
    pairs = enumerate(zip(item["box"], item["outline"], strict=True))
    alone = [frame for frame, (boxes, outlines) in pairs if bool(boxes) != bool(outlines)]
    if alone and labels and any(item["box"]):
        print(
            f"{name}: {len(alone)} frames, the first {alone[0]}, have boxes or outlines alone: detection sees no polyp "
            "where there is no box, segmentation none where there is no outline."
        )


def _check_then_write(output: str, content: dict[str, Any], dataset_dir: str, section: str) -> None:
    """Write a datalist if it is one that can be loaded; otherwise a former one stays."""
    with atomic_path(output) as temporary:
        write_json(temporary, content, indent=1)
        try:
            load_datalist(dataset_dir, temporary, section, label_key="mask")
        except (OSError, ValueError) as error:
            raise ValueError(str(error).replace(str(temporary), output)) from error


def _fit_to_file(annotations: Annotations, dataset_dir: str, image: str | None, file: str) -> tuple[Annotations, int]:
    """The annotations in pixels of the dataset's files, and how many frames these have."""
    root = os.path.realpath(dataset_dir)
    if annotations.images:
        paths = [resolve_path(os.path.join(image or "", name), root, file) for name in annotations.images]
        width, height = common_size(paths)
        return formats.fit_annotations(annotations, height, width, f"{file}: {paths[0]}"), len(paths)
    path = resolve_path(image or annotations.source or annotations.name, root, file)
    with open_clip(path) as reader:
        info = reader.probe()
    if (last := annotations.start + annotations.frames) > info.frames:
        raise ValueError(f"{file}: has annotations of {last} frames, but {path} has {info.frames}.")
    if last < info.frames:  # a part, or a copy of another rate
        print(
            f"{file}: is of frames {annotations.start} to {last - 1} of the {info.frames} of {path}: is that the file "
            "that was annotated, and not a copy of another frame rate?"
        )
    return formats.fit_annotations(annotations, info.height, info.width, f"{file}: {path}"), info.frames


def to_cvat(
    dataset_dir: str, datalist: str, output: str, class_names: Sequence[str] = ("polyp",), section: str = "training"
) -> None:
    """Write a datalist as CVAT's XML, ``<output>/<video>.xml`` for each item.

    Mask files of items that have no ``outline`` become masks of the first class.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file; its ``box``, ``outline``, ``mask`` and ``tag`` are written.
        output: folder for the files.
        class_names: names of the classes, in the order of their labels.
        section: section of the datalist.
    """
    check_order(datalist, as_class_names(class_names))
    sized = _with_sizes(dataset_dir, datalist, section)
    counts = Counter(item["video"] for item, _ in sized)
    for item, (height, width) in sized:
        path = Path(output, f"{item['video' if counts[item['video']] == 1 else 'name']}.xml")  # or parts of one
        with named(f"{datalist}: {item['name']} is not as it should be"):
            task = formats.annotations_from_item(item, as_class_names(class_names), width, height)
            formats.write_cvat_xml(task, path)
        print(path)


def to_coco(
    dataset_dir: str, datalist: str, output: str, class_names: Sequence[str] = ("polyp",), section: str = "training"
) -> None:
    """Write a datalist to one file in COCO's format.

    Args:
        dataset_dir: folder with the data.
        datalist: JSON file.
        output: file to write.
        class_names: names of the classes, in the order of their labels.
        section: section of the datalist.
    """
    check_order(datalist, as_class_names(class_names))
    items, sizes = zip(*_with_sizes(dataset_dir, datalist, section), strict=True)
    items = [{**item, "image": _pictures(item["image"], dataset_dir)} for item in items]
    with named(f"{datalist} is not as it should be"):
        formats.write_coco_annotations(items, as_class_names(class_names), sizes, output)
    print(output)


def _with_sizes(dataset_dir: str, datalist: str, section: str) -> list[tuple[dict[str, Any], tuple[int, int]]]:
    """Items with paths as they are listed, and height and width of their frames; masks become outlines."""
    found = []
    for item in load_datalist(dataset_dir, datalist, section, label_key="mask"):
        with open_clip(item["image"]) as reader:
            info = reader.probe()
        with named(f"{datalist}: {item['name']}"):
            if "mask" in item and "outline" not in item:
                masks = mask_files(item["mask"], item["image"])
                if (size := common_size(masks)) != (info.width, info.height):
                    found_size, expected = ("{}x{}".format(*each) for each in (size, (info.width, info.height)))
                    raise ValueError(f"{masks[0]}: has {found_size} pixels, but its frame {expected}")
                item["outline"] = formats.outlines_from_masks(masks)
            check_boxes(item.get("box", ()), info.height, info.width, item["name"])
            lengths = {key: len(item[key]) for key in ("box", "outline", "tag") if key in item}
            if set(lengths.values()) != {info.frames}:
                expected = f"{info.frames} entries, one a frame, of `box`, `outline`, `mask` or `tag`"
                raise ValueError(f"expected {expected}, found {lengths or 'none of them'}")
        paths = [os.path.relpath(path, os.path.realpath(dataset_dir)) for path in ensure_tuple(item["image"])]
        item["image"] = paths[0] if isinstance(item["image"], str) else paths
        found.append((item, (info.height, info.width)))
    return found


def _pictures(image: Any, dataset_dir: str) -> Any:
    """The pictures of a folder, which is a clip to this project alone; else what is given."""
    if isinstance(image, str) and os.path.isdir(os.path.join(dataset_dir, split_frames(image)[0])):
        return [os.path.relpath(path, dataset_dir) for path in clip_images(os.path.join(dataset_dir, image))]
    return image


if __name__ == "__main__":
    run_from_command_line({"annotate": annotate, "from_cvat": from_cvat, "to_cvat": to_cvat, "to_coco": to_coco})
