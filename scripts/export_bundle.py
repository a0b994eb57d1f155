# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Export the network of a bundle to TorchScript, ONNX or TensorRT.

``python scripts/export_bundle.py bundle/endofm_pretraining --weights models/model.pt --format onnx --preset small``
"""

import fire

from endofm_monai.apps.sharing.export import export_network

if __name__ == "__main__":
    fire.Fire(export_network)
