# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Export the network of a bundle to TorchScript, ONNX or TensorRT.

``python scripts/export_bundle.py bundle/endofm_pretraining --weights models/model.pt --format onnx --preset small``
"""

from endofm_monai.apps.sharing.export import export_network
from endofm_monai.utils import run_from_command_line

if __name__ == "__main__":
    run_from_command_line(export_network)
