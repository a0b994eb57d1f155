# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.apps.cvat.annotations import Annotations, Shape, Tag, Track
from endofm_monai.apps.cvat.datalist import annotations_from_item, items_from_annotations, merge_tags, tagged_clips
from endofm_monai.apps.cvat.masks import outlines_from_masks, write_masks
from endofm_monai.apps.cvat.tracks import join_tracks, track_from_boxes, track_from_shapes
from endofm_monai.apps.cvat.xml_reader import read_cvat_xml
from endofm_monai.apps.cvat.xml_writer import write_cvat_xml

__all__ = [
    "Annotations",
    "Shape",
    "Tag",
    "Track",
    "annotations_from_item",
    "items_from_annotations",
    "join_tracks",
    "merge_tags",
    "outlines_from_masks",
    "read_cvat_xml",
    "tagged_clips",
    "track_from_boxes",
    "track_from_shapes",
    "write_cvat_xml",
    "write_masks",
]
