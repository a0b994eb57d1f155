# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.networks import eval_mode
from monai.utils import CommonKeys, ImageMetaKey, convert_to_tensor
from torch import nn

from endofm_monai.data import split_clips
from endofm_monai.handlers.results import Rows, decollated
from endofm_monai.inferers.predictor import finite
from endofm_monai.utils import atomic_path, write_csv
from endofm_monai.visualize.charts import MIN_CLIPS, plot_embeddings

__all__ = ["ClipEmbeddings", "EmbeddingSaver", "embed_clips"]

logger = logging.getLogger(__name__)


class ClipEmbeddings(NamedTuple):
    """The embeddings of N clips, in the order of the datalist."""

    embeddings: np.ndarray  # float32 (N, D); (0, 0) without clips
    labels: np.ndarray  # int64 (N,) class indices, -1 for a clip without one
    paths: list[str]

    @classmethod
    def of(cls, rows: Rows) -> "ClipEmbeddings":
        """Make it of the rows of :func:`add_embedding`."""
        if not rows:
            return cls(np.empty((0, 0), np.float32), np.empty(0, np.int64), [])
        embeddings, labels, paths = zip(*rows.flat(), strict=True)
        return cls(np.stack(embeddings), np.array(labels, dtype=np.int64), list(paths))

    def labeled(self, role: str) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings ``(M, D)`` and class indices ``(M,)`` of those that have one; their ``role`` is for an error."""
        has_label = self.labels >= 0
        if not has_label.any():
            raise ValueError(f"None of the {len(self.paths)} {role} clips has a class index, an integer `label`.")
        return self.embeddings[has_label], self.labels[has_label]


def add_embedding(rows: Rows, item: Mapping[str, Any], embedding: torch.Tensor) -> None:
    """Note the embedding ``(D,)`` of an item.

    It has its path as ``path`` or in the metadata of ``image``, perhaps its class index as an integer ``label``, and
    ``index``, its place in the datalist, which a single process that goes through that in order does not need.
    """
    if embedding.ndim != 1:
        raise ValueError(f"A clip's embedding must have the shape (D,), but got {tuple(embedding.shape)}.")
    if "index" not in item and idist.get_world_size() > 1:
        raise ValueError("To order the clips of several processes, items need `index`, as of a `ClipDataset`.")
    label = item.get(CommonKeys.LABEL)
    label = label if isinstance(label, int) else -1  # it may also be the path of a mask
    rows[item.get("index", len(rows))] = [(embedding.detach().float().cpu().numpy(), label, _path(item))]


def _path(item: Mapping[str, Any]) -> str:
    meta = getattr(item.get(CommonKeys.IMAGE), "meta", {})
    return str(item["path"] if "path" in item or not meta else meta[ImageMetaKey.FILENAME_OR_OBJ])


def attach_embeddings(rows: Rows, engine: Engine) -> None:
    """Note the ``pred`` ``(D,)`` of each clip of an evaluator that decollates."""

    def collect(engine: Engine) -> None:
        for item, output in decollated(engine):
            add_embedding(rows, item, output[CommonKeys.PRED])

    rows.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, collect)


@contextmanager
def amid_training(network: nn.Module, device: str | torch.device) -> Iterator[None]:
    """Compute in evaluation mode, without gradient, in float32 and uncompiled; a training goes on as without it."""
    with (
        torch.random.fork_rng(devices=[]),  # iterating over a DataLoader draws a seed
        torch.compiler.set_stance("force_eager"),
        torch.autocast(torch.device(device).type, enabled=False),
        eval_mode(network),
    ):
        yield


def embed_clips(network: nn.Module, loader: Iterable[dict[str, Any]], device: str | torch.device) -> ClipEmbeddings:
    """Compute the embeddings of all clips, perhaps amid a training, which it leaves as it is.

    With several processes each embeds what its loader gives, and all get the table of all clips. The network makes
    ``(B, D)`` of a batch's ``image``; :func:`add_embedding` says what else it has. What cannot be read is left out,
    with a warning.
    """
    rows, broken = Rows(), dict[str, None]()
    with amid_training(network, device):
        for batch in loader:
            broken |= dict.fromkeys(batch.get("broken", []))
            if len(batch[CommonKeys.IMAGE]) > 0:
                clips = convert_to_tensor(batch[CommonKeys.IMAGE], device=device, track_meta=False)
                for item, embedding in zip(split_clips(batch), network(clips), strict=True):
                    add_embedding(rows, item, embedding)
    if broken:
        logger.warning(f"{len(broken)} clips cannot be read and are left out of what is probed: {next(iter(broken))}")
    return ClipEmbeddings.of(rows.gather())


@dataclass(eq=False)
class EmbeddingSaver:
    """Writes one embedding a clip: the ``pred`` of a MONAI evaluator that decollates and whose network is a backbone.

    In the end the first process writes ``<filename>.npz`` with the arrays of :class:`ClipEmbeddings`,
    ``<filename>.csv`` with the same as ``path, label, e0, e1, ...``, and ``<filename>_broken.csv`` with what could not
    be read. After an error each process writes what it has to ``<filename>.partial<rank>.npz`` and ``.csv``, which the
    next complete run removes; for that the saver must stand before MONAI's ``StatsHandler`` among the handlers: ignite
    calls only the first one that raises the error again.
    """

    output_dir: PathLike
    filename: str = "embeddings"  # without suffix
    plot: bool = False  # also draw `<filename>.png`, a map of the embeddings, if there are at least three

    def __post_init__(self) -> None:
        self.output_dir = Path(self.output_dir)
        self._rows, self._broken = Rows(), Rows()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)
        attach_embeddings(self._rows, engine)
        self._broken.attach_broken(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._save_partial)

    def _check(self, engine: Engine) -> None:
        for item, output in decollated(engine):
            finite(output[CommonKeys.PRED], f"{_path(item)}: ")

    def _save(self) -> None:
        clips, broken = ClipEmbeddings.of(self._rows.gather()), self._broken.gather()
        if idist.get_rank() > 0:
            return
        place = self._write(clips, self.filename)
        listing = self.output_dir / f"{self.filename}_broken.csv"
        picture = self.output_dir / f"{self.filename}.png"
        for stale in (listing, picture, *self.output_dir.glob(f"{self.filename}.partial*")):
            stale.unlink(missing_ok=True)
        summary = f"Wrote the embeddings of {len(clips.paths)} clips to {place}"
        if self.plot and len(clips.paths) >= MIN_CLIPS:
            plot_embeddings(clips.embeddings, clips.labels, picture)
            summary += ", and a map to .png"
        if broken:
            write_csv(listing, ["message"], broken.values())
        logger.info(f"{summary}; {len(broken)} broken clips" + (f" are listed in {listing}." if broken else "."))

    def _save_partial(self, engine: Engine, error: BaseException) -> None:
        if self._rows:
            place = self._write(ClipEmbeddings.of(self._rows), f"{self.filename}.partial{idist.get_rank()}")
            logger.error(f"Stopped by an error; {len(self._rows)} embeddings are in {place}.")
        raise error

    def _write(self, clips: ClipEmbeddings, name: str) -> str:
        """Write both files, and say which they are."""
        with atomic_path(self.output_dir / f"{name}.npz") as temporary:
            np.savez(temporary, **{**clips._asdict(), "paths": np.array(clips.paths, dtype=str)})
        header = ["path", "label", *(f"e{column}" for column in range(clips.embeddings.shape[1]))]
        rows = zip(clips.paths, clips.labels, clips.embeddings, strict=True)
        table = ([path, label, *(f"{value:.9g}" for value in embedding)] for path, label, embedding in rows)
        write_csv(self.output_dir / f"{name}.csv", header, table)
        return f"{self.output_dir / name}.npz and .csv"
