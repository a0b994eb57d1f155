# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0


from endofm_monai.networks.utils import freeze_blocks, unwrap

__all__ = ["freeze_blocks", "unwrap"]
