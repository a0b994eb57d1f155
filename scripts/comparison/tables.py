# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What the runs of a comparison gave: as CSV, Markdown, picture, and with all settings as JSON."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from comparison.run import Run

from endofm_monai.utils import atomic_path, write_csv, write_json
from endofm_monai.visualize.figure import new_figure, save_figure

MEASURED = ["trained_parameters", "parameters", "seconds_per_step", "peak_memory_gib", "tokens_per_clip"]
COLUMNS = ["task", "score", "share", "start", "seeds", "mean", "deviation", "low", "high", *MEASURED]
HEADER = "| start | labels | score | trained parameters | s a step | peak GiB | tokens a pre-training clip |"
ROW = (
    "| {start} | {percent:g}% | {mean:.3f}{spread} [{low:.3f}, {high:.3f}] | {trained_parameters:,.0f} ({part:.1%}) "
    "| {seconds_per_step:.3g} | {peak_memory_gib:.2f} | {tokens} |"
)


def write_tables(runs: Sequence[Run], output: Path) -> None:
    """Write what there is so far."""
    done = [(run, result) for run in runs if (result := run.result()) is not None]
    write_json(output / "comparison.json", [{"names": run.names, **result} for run, result in done])
    scored = [pair for pair in done if pair[0].score is not None]  # in the order of tasks, shares, starts and seeds
    rows = [summarize(names, list(cell)) for names, cell in groupby(scored, lambda pair: pair[0].names[:-1])]
    write_csv(output / "comparison.csv", COLUMNS, [list(row.values()) for row in rows])
    by_task = {task: list(of_task) for task, of_task in groupby(rows, itemgetter("task"))}
    with atomic_path(output / "comparison.md") as path:
        path.write_text("\n\n".join(markdown(task, of_task) for task, of_task in by_task.items()), encoding="utf-8")
    if by_task:
        plot(by_task, output / "comparison.png")


def summarize(names: Sequence[Any], cell: Sequence[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """A row of the table: the seeds of a start on a task."""
    task, share, start = names
    run, results = cell[0][0], [result for _, result in cell]
    values = np.array([result["value"] for result in results], dtype=float)  # of a score that is undefined: NaN
    low, high = np.array([result["interval"] or (np.nan, np.nan) for result in results], dtype=float).mean(axis=0)
    source = run.pretraining.result() if run.pretraining is not None else None
    deviation = values.std(ddof=1) if len(cell) > 1 else np.nan
    row = [task, run.score, share, start, len(cell), values.mean(), deviation, low, high]
    row += [float(np.median(np.array([result[name] for result in results], dtype=float))) for name in MEASURED[:-1]]
    return dict(zip(COLUMNS, [*row, (source or {}).get("tokens_per_clip")], strict=True))


def markdown(task: str, rows: Sequence[dict[str, Any]]) -> str:
    """The table of a task: mean ± deviation of the seeds, in brackets the interval."""
    seeds = max(row["seeds"] for row in rows)
    lines = [f"**{task}** ({rows[0]['score']}, {seeds} seeds)", "", HEADER, "| --- " * 7 + "|"]
    for row in rows:
        row = row if row["seeds"] == seeds else {**row, "start": f"{row['start']} (seeds: {row['seeds']})"}
        spread = "" if np.isnan(row["deviation"]) else f" ± {row['deviation']:.3f}"
        tokens = "" if row["tokens_per_clip"] is None else f"{row['tokens_per_clip']:,}"
        part = row["trained_parameters"] / row["parameters"]
        lines.append(ROW.format(**row, percent=100 * row["share"], spread=spread, part=part, tokens=tokens))
    return "\n".join(lines)


def plot(by_task: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel a task: the starts' scores with their intervals, a color for each share of the labels."""
    starts = list(dict.fromkeys(row["start"] for rows in by_task.values() for row in rows))
    shares = sorted({row["share"] for rows in by_task.values() for row in rows})
    figure = new_figure(1.5 + 2.5 * len(by_task), 0.8 + 0.35 * len(starts))
    panels = figure.subplots(1, len(by_task), sharey=True, squeeze=False)[0]
    for axes, (task, rows) in zip(panels, by_task.items(), strict=True):
        for number, share in enumerate(shares):
            of_share = [row for row in rows if row["share"] == share]
            places = [starts.index(row["start"]) + 0.18 * (number - (len(shares) - 1) / 2) for row in of_share]
            mean, low, high = (np.array([row[name] for row in of_share]) for name in ("mean", "low", "high"))
            ends = np.maximum([mean - low, high - mean], 0)
            label = f"{100 * share:g}% of the labels"
            axes.errorbar(mean, places, xerr=ends, fmt="o", markersize=4, capsize=2, label=label)
        axes.set_yticks(range(len(starts)), starts, fontsize=7)
        axes.set_ylim(len(starts) - 0.5, -0.5)
        axes.set_title(f"{task} ({rows[0]['score']})", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
    panels[-1].legend(fontsize=6)
    save_figure(figure, path)
