# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.apps.clip_detector import ClipDetector
from endofm_monai.apps.streaming import Detections, StreamingDetector
from endofm_monai.apps.video_inferer import VideoDetectionInferer, read_blocks

__all__ = ["ClipDetector", "Detections", "StreamingDetector", "VideoDetectionInferer", "read_blocks"]
