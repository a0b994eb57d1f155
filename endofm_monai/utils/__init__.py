# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.utils.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    check_writable,
    open_zip,
    printable,
    read_json,
    remove_leftovers,
    sha256,
    temporary_prefix,
    write_csv,
    write_json,
)

__all__ = [
    "TEMPORARY_PREFIX", "atomic_path", "check_writable", "open_zip", "printable", "read_json", "remove_leftovers",
    "sha256", "temporary_prefix", "write_csv", "write_json",
]  # fmt: skip
