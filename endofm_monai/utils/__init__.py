# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from endofm_monai.utils.compute import multiplies_faster
from endofm_monai.utils.errors import INTERRUPTED, cause_of, name_memory_errors, run_from_command_line
from endofm_monai.utils.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    check_writable,
    hold_folder,
    open_zip,
    printable,
    read_csv,
    read_json,
    read_text,
    remove_leftovers,
    sha256,
    temporary_prefix,
    write_csv,
    write_json,
)
from endofm_monai.utils.settings import as_class_names, as_device, check_run, check_settings, nearest_key

__all__ = [
    "INTERRUPTED", "TEMPORARY_PREFIX", "as_class_names", "as_device", "atomic_path", "cause_of", "check_run",
    "check_settings", "check_writable", "hold_folder", "multiplies_faster", "name_memory_errors", "nearest_key",
    "open_zip", "printable", "read_csv", "read_json", "read_text", "remove_leftovers", "run_from_command_line",
    "sha256", "temporary_prefix", "write_csv", "write_json",
]  # fmt: skip
