# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.networks.nets.classifier import EndoFMClassifier, STAdapterClassifier
from endofm_monai.networks.nets.concepts import ConceptFeatures, ConceptNetwork
from endofm_monai.networks.nets.detector import EndoFMDetector
from endofm_monai.networks.nets.endofm import EndoFM
from endofm_monai.networks.nets.frame_vit import FrameViT
from endofm_monai.networks.nets.segmenter import EndoFMSegmenter
from endofm_monai.networks.nets.student_teacher import StudentTeacher, TeacherBackbone

__all__ = [
    "ConceptFeatures", "ConceptNetwork", "EndoFM", "EndoFMClassifier", "EndoFMDetector", "EndoFMSegmenter", "FrameViT",
    "STAdapterClassifier", "StudentTeacher", "TeacherBackbone",
]  # fmt: skip
