# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Command line: ``python -m endofm_monai.weights convert IN OUT.safetensors`` and ``... inspect FILE``."""

from __future__ import annotations

import sys

import fire

from endofm_monai.weights.convert import convert, inspect

if __name__ == "__main__":
    try:
        fire.Fire({"convert": convert, "inspect": inspect}, name="endofm_monai.weights")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
