# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.formats.annotations import (
    TRACK,
    Annotations,
    Shape,
    Tag,
    Track,
    join_tracks,
    track_from_boxes,
    track_from_shapes,
)
from endofm_monai.formats.boxes import BOX_WRITERS, VideoDetections, write_coco, write_csv, write_cvat, write_overlay
from endofm_monai.formats.coco import datalist_from_coco, write_coco_annotations
from endofm_monai.formats.cvat_xml import RECTANGLE, SIDES, read_cvat_xml, write_cvat_xml
from endofm_monai.formats.items import annotations_from_item, items_from_annotations, merge_tags, tagged_clips
from endofm_monai.formats.masks import (
    MASK_WRITERS,
    MaskOutput,
    decode_runs,
    draw_polygon,
    encode_runs,
    mask_from_points,
    mask_points,
    mask_polygons,
    outlines_from_masks,
    write_coco_masks,
    write_masks,
    write_nifti_masks,
    write_overlays,
    write_png_masks,
)
from endofm_monai.formats.video import open_video, write_video

__all__ = [
    "BOX_WRITERS",
    "MASK_WRITERS",
    "RECTANGLE",
    "SIDES",
    "TRACK",
    "Annotations",
    "MaskOutput",
    "Shape",
    "Tag",
    "Track",
    "VideoDetections",
    "annotations_from_item",
    "datalist_from_coco",
    "decode_runs",
    "draw_polygon",
    "encode_runs",
    "items_from_annotations",
    "join_tracks",
    "mask_from_points",
    "mask_points",
    "mask_polygons",
    "merge_tags",
    "open_video",
    "outlines_from_masks",
    "read_cvat_xml",
    "tagged_clips",
    "track_from_boxes",
    "track_from_shapes",
    "write_coco",
    "write_coco_annotations",
    "write_coco_masks",
    "write_csv",
    "write_cvat",
    "write_cvat_xml",
    "write_masks",
    "write_nifti_masks",
    "write_overlay",
    "write_overlays",
    "write_png_masks",
    "write_video",
]
