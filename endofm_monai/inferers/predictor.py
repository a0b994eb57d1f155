# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar

import torch
from monai.networks import eval_mode

from endofm_monai.data import ClipInfo, ClipReader, ClipReadError, open_clip
from endofm_monai.networks import unwrap
from endofm_monai.utils import multiplies_faster

Answer = dict[str, torch.Tensor]  # what a network says of a frame, on the CPU; the keys are the task's, see predictors
Answered = list[tuple[torch.Tensor, Answer]]


class NotFiniteError(ClipReadError):
    """What a network says of a clip is no number, so that nothing can be said of the clip."""


@dataclass(eq=False, repr=False)
class Predictor(ABC):
    """The one way through a video: frames in order, each decoded once and encoded once, in bounded memory.

    Offline an answer may look at later frames and so comes some frames later; online, for live use, it comes at once
    and looks at earlier frames alone. How many frames are pushed at a time makes no difference to the answers. Files
    that are gone through at once, and a stream beside them, do not disturb each other.
    """

    task: ClassVar[str]
    network: Any  # an ``nn.Module``, perhaps in ``DistributedDataParallel``, or an exported one
    _: KW_ONLY
    mode: str = "offline"  # or "online"
    block: int = 8  # frames that are decoded and encoded at a time
    amp: bool | None = False  # compute the network in lower precision; None: where the device multiplies faster so
    amp_dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online"):
            raise ValueError(f'`mode` must be "offline" or "online", but got {self.mode!r}.')
        self.network = unwrap(self.network)
        self.begin()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(chain(self.network.parameters(), self.network.buffers(), [torch.empty(0)])).device

    @property
    def precision(self) -> torch.dtype:
        """What the network computes in."""
        lower = multiplies_faster(self.amp_dtype, self.device.type) if self.amp is None else self.amp
        return self.amp_dtype if lower else torch.float32

    def __call__(self, source: Any) -> Iterator[tuple[torch.Tensor, Answer]]:
        """Go through a clip.

        Args:
            source: what :func:`endofm_monai.data.open_clip` opens, or an open reader.

        Yields:
            each frame, uint8 RGB ``(3, H, W)``, and what is said of it.

        Raises:
            ClipReadError: when a frame cannot be read, or the network's answer is not finite; frames before it have
                been answered.
        """
        with opened(source) as reader:
            info = reader.probe()
            alone = self._beginning(info)
            numbers = range(info.frames)
            blocks = [numbers[start : start + self.block] for start in numbers[:: self.block]]
            with closing(read_ahead(reader, blocks)) as read:  # its thread ends before the reader is closed
                for frames in read:
                    yield from alone.push(frames)
            yield from alone.flush()

    def pieces(self, reader: ClipReader) -> Iterator[tuple[torch.Tensor, Answer]]:
        """What results are written of: the frames; where a task answers by windows, these."""
        return self(reader)

    def begin(self, info: ClipInfo | None = None) -> None:
        """Forget all frames, and begin a video, of which nothing is known without ``info``."""
        self._info = info
        self._frames: dict[int, torch.Tensor] = {}  # whose answers are due, by their number
        self._seen = 0
        self._size: Sequence[int] = ()

    def push(self, frames: torch.Tensor) -> Answered:
        """Take the next frames of a video, uint8 RGB ``(3, T, H, W)``; gives those that are due with their answers.

        Where the size of the frames changes, and after an error in answering, another video begins.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[0] != 3:
            found = f"{frames.dtype} {tuple(frames.shape)}"
            raise ValueError(f"`frames` must be uint8 RGB (3, T, H, W), also a single one, but are {found}.")
        answered: Answered = []
        if not frames.shape[1]:
            return answered
        if self._seen and frames.shape[-2:] != self._size:
            answered = self.flush()
        self._size = frames.shape[-2:]
        try:
            with self.computing():
                for part in frames.split(self.block, dim=1):
                    numbers = range(self._seen, self._seen + part.shape[1])
                    self._frames.update(zip(numbers, part.unbind(1), strict=True))
                    self._seen = numbers.stop
                    answered += self._take(numbers, part)
        except Exception:
            self.begin()  # or each later push would come upon the same frames
            raise
        return answered

    def flush(self) -> Answered:
        """Answer for the last frames of a video; what is pushed then is of another one."""
        try:
            with self.computing():
                return self._finish()
        finally:
            self.begin()

    def at(self, source: Any, index: int) -> Answer:
        """What is said of frame ``index`` of a clip, as by going through it, at the cost of the frames it needs.

        Raises:
            ClipReadError: when the clip has no such frame, or one that is needed cannot be read.
        """
        with opened(source) as reader, self.computing():
            info = reader.probe()
            if not 0 <= index < info.frames:
                raise ClipReadError(f"{reader.path}: has no frame {index}; its {info.frames} frames count from 0")
            return self._beginning(info)._look_at(reader, index, info)

    def _beginning(self, info: ClipInfo) -> "Predictor":
        """A copy that begins a video, beside other ones and a stream."""
        alone = copy.copy(self)
        alone.begin(info)
        return alone

    def try_out(self) -> None:
        """Answer for two black frames; a ``ValueError`` says why the network cannot see it."""
        alone = self._beginning(ClipInfo(2, 30.0, 64, 64, 2 / 30))
        try:
            alone.push(torch.zeros(3, 2, 64, 64, dtype=torch.uint8))
            alone.flush()
        except ClipReadError:  # not finite, which each video tells of itself
            pass
        except ValueError as error:
            raise ValueError(f"the network cannot see frames of this `frame_size`: {error}") from error

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The network is in evaluation, without gradients, in the precision that was asked for."""
        lower = self.precision != torch.float32
        with eval_mode(self.network), torch.autocast(self.device.type, self.amp_dtype, enabled=lower):
            yield

    @abstractmethod
    def uncertainty(self, answer: Answer) -> float:
        """How uncertain an answer is, from 0 to 1."""

    @abstractmethod
    def _take(self, numbers: range, frames: torch.Tensor) -> Answered:
        """Take the frames of these numbers, ``(3, T, H, W)``, which are among ``_frames``; gives those that are due."""

    @abstractmethod
    def _finish(self) -> Answered:
        """Give the frames that are left."""

    @abstractmethod
    def _look_at(self, reader: ClipReader, index: int, info: ClipInfo) -> Answer:
        """Answer for one frame, by a copy that has seen none."""


def binary_entropy(probability: torch.Tensor) -> torch.Tensor:
    """Entropy of yes and no, as a share of the largest there can be."""
    return (torch.special.entr(probability) + torch.special.entr(1 - probability)) / math.log(2)


def finite(output: torch.Tensor, where: str = "") -> torch.Tensor:
    """Give what a network says of a clip, or of some, if all of it is finite."""
    if not output.isfinite().all():
        advice = "look at its weights, or compute it in higher precision (`amp`)"
        raise NotFiniteError(f"{where}the network's answer is not finite: {advice}")
    return output


def read_ahead(reader: ClipReader, blocks: Iterable[Sequence[int]]) -> Generator[torch.Tensor, None, None]:
    """Read the frames of each block, uint8 ``(3, T, H, W)``, while the block before it is used."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        reads = (thread.submit(reader.read, block) for block in blocks)
        for now, _ in pairwise(chain(reads, [Future[torch.Tensor]()])):  # the one behind the last is never waited for
            yield now.result()


@contextmanager
def opened(source: Any) -> Iterator[ClipReader]:
    """Open a clip, if it is not open, and name it where the network's answer is not finite."""
    with nullcontext(source) if isinstance(source, ClipReader) else open_clip(source) as reader:
        try:
            yield reader
        except NotFiniteError as error:
            raise ClipReadError(f"{reader.path}: {error}") from error
