# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from torch import nn

from endofm_monai.losses.spatial_temporal_matching import enqueue, gather_rows, sinkhorn, sum_over_ranks
from endofm_monai.networks.nets.concepts import STREAMS, ConceptFeatures

CONTRAST_TEMPERATURE = 0.07
CONCEPT_TEMPERATURE = 0.1
SINKHORN_TEMPERATURE = 0.05
ENTROPY_WEIGHT = 0.1
ACTIVE_RANK = 10  # a clip shows those concepts whose scores are above its tenth largest one
MARGIN = 1.4  # from which distance on local features of other videos are far enough
# which of the six clips can show a concept, and which cannot
SHOWN = {"static": [0, 1, 2, 3], "dynamic": [0, 1, 4, 5]}
HIDDEN = {"static": [4, 5], "dynamic": [2, 3]}


class ConceptLoss(nn.Module):
    """Self-supervised loss of VCL: what :class:`endofm_monai.networks.nets.ConceptNetwork` makes of six clips a video.

    The sum of these terms, each a mean over the videos (Qian et al., "Static and Dynamic Concepts for Self-supervised
    Video Representation Learning", ECCV 2022):

    ===================== ==========================================================================================
    ``contrast_*``        clips of one video against those of other videos: rgb with rgb, static and dynamic clips
    ``alignment_*``       the clips that can show a kind of concepts predict each other's balanced scores
    ``entropy_*``         minus the entropy of what a clip says of concepts that it cannot show, times 0.1
    ``reconstruction_*``  minus the cosine of the class token and its reconstruction from the scores
    ``local_*``           local features of a concept in both clips of a video against those in other videos
    ===================== ==========================================================================================

    The local terms count by ``local_weight``, and the scores are balanced with a queue of earlier ones if
    ``uses_queue``; a :class:`endofm_monai.handlers.ConceptPhaseHandler` sets both. The queue starts empty and is part
    of the state dict.

    A call leaves ``values``, without gradient and over the videos of all ranks: the terms by name, unweighted; the mean
    entropy in nats of what clips say of concepts that they can show, ``concept_entropy``; and ``concepts_used``, the
    number of concepts (of K) that would have this mean use if all were used alike.

    When ranks hold different numbers of videos, the mean of their losses, weighted by these numbers as a
    :class:`endofm_monai.engines.ClipTrainer` does, has the gradient of the loss of all videos as one batch.

    Args:
        num_concepts: number K of static, and of dynamic concepts.
        batch_size: videos of a step on all ranks, which each other's negatives are of.
        queue_length: number of earlier videos whose scores are remembered.
    """

    queue: torch.Tensor
    queue_rows: torch.Tensor

    def __init__(self, num_concepts: int, batch_size: int, queue_length: int = 1024) -> None:
        super().__init__()
        if num_concepts < ACTIVE_RANK:
            limit = f"{ACTIVE_RANK}: a clip shows those above its {ACTIVE_RANK}th score"
            raise ValueError(f"`num_concepts` must be at least {limit}, but got {num_concepts}.")
        if batch_size < 2:
            raise ValueError("`batch_size` must be at least 2 (of all processes): videos are told from each other.")
        if 0 < queue_length < batch_size:
            raise ValueError(f"`queue_length` must hold a batch of {batch_size} videos, or be 0, got {queue_length}.")
        self.num_concepts = num_concepts
        self.uses_queue = False
        self.local_weight = 0.0
        self.register_buffer("queue", torch.zeros(queue_length, 2 * len(STREAMS), 2 * num_concepts))
        self.register_buffer("queue_rows", torch.tensor(0))

    def forward(self, features: ConceptFeatures, targets: None = None) -> torch.Tensor:
        """Float32 loss of the features of B videos; there are no targets."""
        with torch.autocast(features.scores.device.type, enabled=False):
            features = ConceptFeatures(*(value.float() for value in features))
            terms = self.terms(features)
            weights = {"entropy": ENTROPY_WEIGHT, "local": self.local_weight}
            loss = torch.stack([weights.get(name.split("_")[0], 1.0) * term for name, term in terms.items()]).sum()
            with torch.no_grad():
                values = {**terms, "loss": loss} | self._use(features.scores)
                self.values = dict(zip(values, sum_over_ranks(torch.stack(list(values.values()))), strict=True))
        if self.training:
            enqueue(self.queue, self.queue_rows, features.scores.detach())
        return loss * _number_of_videos(features.scores) / len(features.scores)

    def terms(self, features: ConceptFeatures) -> dict[str, torch.Tensor]:
        """This rank's shares of the terms, unweighted; the sum over ranks is the term."""
        queue = self.queue if self.uses_queue else self.queue[:0]
        halves, earlier = self._halves(features.scores), self._halves(queue)
        rgb_rgb, rgb_static, rgb_dynamic, static_rgb, dynamic_rgb = features.projections.unbind(dim=1)
        cosine = F.cosine_similarity(features.reconstructions, features.class_tokens.detach(), dim=2)
        cosine = cosine.unflatten(1, (len(STREAMS), 2)).mean(dim=2).sum(dim=0) / _number_of_videos(cosine)
        return {
            "contrast_rgb": contrast_clips(rgb_rgb, rgb_rgb) / 2,  # here two of the four pairs are the other two
            "contrast_static": contrast_clips(rgb_static, static_rgb),
            "contrast_dynamic": contrast_clips(rgb_dynamic, dynamic_rgb),
            **{
                f"alignment_{kind}": align(halves[kind][:, of], earlier[kind][:, of], self.queue_rows)
                for kind, of in SHOWN.items()
            },
            **{f"entropy_{kind}": -entropy(halves[kind][:, HIDDEN[kind]]) for kind in HIDDEN},
            **{f"reconstruction_{name}": -cosine[index] for index, name in enumerate(STREAMS)},
            "local_rgb": contrast_concepts(features.rgb_concepts, features.scores[:, :2]),
            "local_static": contrast_concepts(features.static_concepts, halves["static"][:, 2:4]),
            "local_dynamic": contrast_concepts(features.dynamic_concepts, halves["dynamic"][:, 4:]),
        }

    def _halves(self, scores: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores ``(B, 6, K)`` of the concepts of either kind."""
        return {"static": scores[..., : self.num_concepts], "dynamic": scores[..., self.num_concepts :]}

    def _use(self, scores: torch.Tensor) -> dict[str, torch.Tensor]:
        """This rank's share of how surely clips are told by concepts, and of how many of these all clips use."""
        halves = [half[:, SHOWN[kind]] for kind, half in self._halves(scores).items()]
        uses = [(half / CONCEPT_TEMPERATURE).softmax(dim=2).mean(dim=1).sum(dim=0) for half in halves]
        use = sum_over_ranks(torch.stack(uses)) / _number_of_videos(scores)  # (2, K)
        used = torch.special.entr(use).sum(dim=1).exp().mean()
        return {"concept_entropy": sum(map(entropy, halves)) / 2, "concepts_used": used / idist.get_world_size()}


def _number_of_videos(rows: torch.Tensor) -> int:
    """Number of rows of all ranks."""
    return idist.all_reduce(len(rows))


def contrast(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """This rank's share of the contrast of features ``(B, P)`` of one clip a video with those of another one (InfoNCE).

    Each query is to tell the key of its own video from those of all other videos of all ranks. Keys take no gradient.
    """
    keys, own = gather_rows(F.normalize(key, dim=1))
    cosine = F.normalize(query, dim=1) @ keys.T
    return F.cross_entropy(cosine / CONTRAST_TEMPERATURE, own, reduction="sum") / len(keys)


def contrast_clips(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Half the sum of the contrasts of both clips' features ``(B, 2, P)`` with those of the other clip, and back."""
    pairs = [(first, second), (second, first)]
    return torch.stack([contrast(one[:, i], other[:, 1 - i]) for one, other in pairs for i in (0, 1)]).sum() / 2


def align(scores: torch.Tensor, earlier: torch.Tensor, held: torch.Tensor | None = None) -> torch.Tensor:
    """This rank's share of how badly S clips of a video predict each other's balanced scores, from their own.

    The ``scores`` ``(B, S, K)`` are of concepts that the clips can show; the targets are balanced with those of
    ``earlier`` videos ``(M, S, K)``, the same on all ranks, of which the first ``held`` ones count, by default all.
    """
    clips = range(scores.shape[1])
    targets = torch.stack([sinkhorn(scores[:, i], SINKHORN_TEMPERATURE, earlier[:, i], held) for i in clips], dim=1)
    pairs = -torch.einsum("bik,bjk->ij", targets, F.log_softmax(scores / CONCEPT_TEMPERATURE, dim=2))
    others = ~torch.eye(len(clips), dtype=torch.bool, device=scores.device)
    return pairs[others].mean() / _number_of_videos(scores)


def entropy(scores: torch.Tensor) -> torch.Tensor:
    """This rank's share of the mean entropy in nats of scores ``(B, S, K)``."""
    entropies = torch.special.entr((scores / CONCEPT_TEMPERATURE).softmax(dim=2)).sum(dim=2)
    return entropies.mean(dim=1).sum() / _number_of_videos(scores)


def contrast_concepts(concepts: torch.Tensor, scores: torch.Tensor, rank: int = ACTIVE_RANK) -> torch.Tensor:
    """This rank's share of the contrast of local features ``(B, 2, N, D)`` of those concepts that both clips show.

    A clip shows a concept if its score, of ``scores`` ``(B, 2, N)``, is above the ``rank`` th largest one.
    """
    active = (scores > scores.topk(rank, dim=2).values[..., -1:]).all(dim=1)  # (B, N)
    sums = [match_concepts(concepts[:, i], concepts[:, 1 - i], active) for i in (0, 1)]
    return torch.stack([pull + push for pull, push in sums]).sum() / (1 + 2 * sum_over_ranks(active.sum()))


def match_concepts(query: torch.Tensor, key: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances of normalized features ``(B, N, D)`` of this rank's ``active`` concepts ``(B, N)``.

    Returns:
        their sum within the videos; and that of the squares of how far the mean feature of another video, of any rank,
        comes within the margin. Keys take no gradient.
    """
    keys, own = gather_rows(key)
    distance = (2 - 2 * torch.einsum("bnd,pnd->bpn", query, keys) + 1e-5).sqrt()
    is_own = F.one_hot(own, len(keys)).bool().unsqueeze(2)  # (B, P, 1)
    active = active.unsqueeze(1)
    pull = distance.square().where(is_own & active, 0).sum()
    push = (MARGIN - distance).relu().square().where(~is_own & active, 0).sum()
    return pull, push / max(len(keys) - 1, 1)  # a single video is left where all others were broken
