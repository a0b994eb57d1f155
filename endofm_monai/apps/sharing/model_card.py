# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from endofm_monai.utils import sha256

__all__ = ["fill_model_card"]

Row = tuple[str, float, list[float] | None]
"""Name, value and 95 % interval of a score."""


def fill_model_card(
    folder: str | os.PathLike, trained_on: str | None = None, results: str | os.PathLike | None = None
) -> Path:
    """Say in a bundle's ``docs/model_card.md`` what its weights are, what they were trained on, and what they reach.

    The sections "Weights" and "Results" are written anew; what the bundle's authors wrote of intended use, data,
    protocol and limits stays.

    Args:
        folder: the bundle's folder, with weights in ``models``.
        trained_on: the training data and where they come from, as one sentence or more.
        results: the JSON report of the bundle's ``evaluate.json`` for these weights.

    Returns:
        the card.

    Raises:
        ValueError: when the card lacks one of the sections, or the report has no score.
    """
    folder = Path(folder)
    card = folder / "docs" / "model_card.md"
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    lines = [f"Version {metadata['version']} of the bundle.", ""]
    lines += [f"Trained on: {trained_on or 'not stated by those who share these weights'}.".replace("..", "."), ""]
    lines += ["| file | bytes | SHA-256 |", "| --- | --- | --- |"]
    for path in sorted((folder / "models").iterdir()):
        lines.append(f"| `models/{path.name}` | {path.stat().st_size} | `{sha256([path])}` |")
    text = _with_section(card, card.read_text(encoding="utf-8"), "Weights", "\n".join(lines))
    card.write_text(_with_section(card, text, "Results", _results(results)), encoding="utf-8")
    return card


def _results(report: str | os.PathLike | None) -> str:
    if report is None:
        return "These weights came without results: nothing is known of how well they do."
    content = json.loads(Path(report).read_text(encoding="utf-8"))
    rows = list(_rows(content, ""))
    if not rows:
        raise ValueError(f"{report}: has no score; expected the JSON report of the bundle's evaluate.json.")
    table = ["| score | value | 95 % interval |", "| --- | --- | --- |"]
    for name, value, interval in rows:
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        table.append(f"| {name} | {shown} | {'' if interval is None else '{:.3f} to {:.3f}'.format(*interval)} |")
    protocol = content.get("protocol")
    return "\n".join([*([f"Protocol: {protocol}.", ""] if protocol else []), *table])


def _rows(report: dict[str, Any], prefix: str) -> Iterator[Row]:
    """Scores in a report, of any of the bundles, by the path of keys to them."""
    intervals = report.get("intervals", {})
    for key, value in report.items():
        name = f"{prefix}{key}"
        if key == "intervals" or isinstance(value, bool):
            continue
        if isinstance(value, dict) and isinstance(value.get("value"), (int, float)):
            yield name, value["value"], value.get("interval")
        elif key == "scores" and intervals:
            yield from ((f"{prefix}{n}", v, intervals.get(n)) for n, v in value.items() if v is not None)
        elif isinstance(value, dict):
            yield from _rows(value, f"{name} / ")
        elif isinstance(value, (int, float)):
            yield name, value, None


def _with_section(card: Path, text: str, title: str, content: str) -> str:
    """``text`` with the content of its section ``## title`` replaced."""
    before, heading, after = text.partition(f"## {title}\n")
    if not heading:
        raise ValueError(f"{card}: has no section '## {title}'.")
    _, next_heading, rest = after.partition("\n## ")
    return f"{before}{heading}\n{content}\n{next_heading}{rest}"
