# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What others read: each format written once, for savers, CVAT and MONAI Label."""

from endofm_monai.formats.annotations import (
    Annotations,
    Shape,
    Tag,
    Track,
    end_gaps,
    fit_annotations,
    join_tracks,
    merge_tags,
)
from endofm_monai.formats.coco import datalist_from_coco, write_coco_annotations
from endofm_monai.formats.cvat_xml import read_cvat_xml, write_cvat_xml
from endofm_monai.formats.items import annotations_from_item, items_from_annotations, tagged_clips, video_path
from endofm_monai.formats.masks import mask_polygons, outlines_from_masks, write_masks
from endofm_monai.formats.writers import (
    BOX_WRITERS,
    MASK_WRITERS,
    VideoOutput,
    WriteFrame,
    open_video,
    read_coco_masks,
    write_video,
)

__all__ = [
    "BOX_WRITERS", "MASK_WRITERS", "Annotations", "Shape", "Tag", "Track", "VideoOutput", "WriteFrame",
    "annotations_from_item", "datalist_from_coco", "end_gaps", "fit_annotations", "items_from_annotations",
    "join_tracks", "mask_polygons", "merge_tags", "open_video", "outlines_from_masks", "read_coco_masks",
    "read_cvat_xml", "tagged_clips", "video_path", "write_coco_annotations", "write_cvat_xml", "write_masks",
    "write_video",
]  # fmt: skip
