# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What a pre-training step asks of a GPU besides arithmetic: kernels, values to wait for, graphs, and memory."""

import weakref
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch._dynamo.utils import counters
from torch._inductor.ir import MultiOutput
from torch._inductor.scheduler import NopKernelSchedulerNode, Scheduler
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from endofm_monai.engines import StudentTeacherTrainer
from endofm_monai.handlers import GradientHandler, HealthHandler, ScheduleHandler, TeacherUpdateHandler
from endofm_monai.losses import SpatialTemporalMatchingLoss
from endofm_monai.networks.blocks import packed_clips
from endofm_monai.networks.blocks.divided_space_time import SelfAttention
from endofm_monai.networks.nets import EndoFM, StudentTeacher
from endofm_monai.optimizers import CosineSchedule, weight_decay_groups
from endofm_monai.transforms import RandAugmentViews, ViewPlan
from endofm_monai.transforms.joined_views import augment_batch

FRAMES = (8, 16, 2, 2, 4, 4, 8, 8, 16, 16)  # of the ten views, of which the first two are global
WITHOUT_KERNEL = {"_unsafe_view", "alias", "detach", "empty", "empty_like", "lift_fresh", "new_empty"}
WAITING = {"_local_scalar_dense", "_unique2", "equal", "is_nonzero", "masked_select", "nonzero", "unique_dim"}
READING = {"cpu", "numpy", "tolist"}  # which wait too, but on a GPU only
STEPS = 3


class LaunchCounter(TorchDispatchMode):
    """Counts by phase the operations that are kernels on a GPU (a ``foreach`` is one), and those that wait for it."""

    def __init__(self, phase: str = "") -> None:
        super().__init__()
        self.phase = phase
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        phase = self.phase
        if phase == "forward":
            phase = "student forward" if torch.is_grad_enabled() else "teacher forward"
        if phase and name in WAITING:
            self.waits[phase] += 1
        elif phase and not func.is_view and name not in WITHOUT_KERNEL:
            self.kernels[phase] += 1
        return func(*args, **(kwargs or {}))


class ReadCounter(TorchFunctionMode):
    """Adds to a counter's waits what copies values to the CPU."""

    def __init__(self, counter: LaunchCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.counter.phase and func.__name__ in READING:
            self.counter.waits[self.counter.phase] += 1
        return func(*args, **(kwargs or {}))


def phase_mark(counter: LaunchCounter, phase: str, event: Any) -> SimpleNamespace:
    """Among the handlers of a trainer the place where a phase of the last step begins."""

    def begin(engine: Engine) -> None:
        counter.phase = phase if engine.state.iteration == STEPS else ""

    return SimpleNamespace(attach=lambda engine: engine.add_event_handler(event, begin))


def launches(depth: int = 12, backend: str | None = None, amp: bool = False, small: bool = False) -> dict[str, Any]:
    """Kernels and waits by phase of a ten-view step of the trainer; or graphs and kernels of a compiled one.

    A break in a graph is an error; ``later_graphs`` are those after the second step. Kernels of Inductor are those that
    it schedules, fused and external ones, for each graph forwards and backwards in the order of compiling.

    Three steps on the CPU, with a backbone as deep as the published one and otherwise tiny. Kernels are the operations
    of the last step that PyTorch dispatches, except views; AdamW is the fused one.

    Args:
        depth: blocks of the backbone.
        backend: compile with this backend of ``torch.compile``; ``"inductor"`` takes minutes.
        amp: with autocast to bfloat16.
        small: with the targets of the small recipe.
    """
    counter = LaunchCounter()
    trainer = make_trainer(counter, depth, backend, amp, small)
    if backend is None:  # nothing is compiled below the counters
        with counter, ReadCounter(counter):
            trainer.run()
        counted = {"kernels": counter.kernels, "waits": counter.waits}
        return {name: {"all": sum(counts.values()), **counts} for name, counts in counted.items()}
    torch._dynamo.reset()
    counters.clear()
    graphs: list[int] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: graphs.append(counters["stats"]["unique_graphs"]))
    scheduled: list[int] = []
    write_code = Scheduler.codegen

    def count_and_write_code(scheduler: Scheduler) -> Any:
        nodes = [node for node in scheduler.nodes if not isinstance(node, NopKernelSchedulerNode)]
        scheduled.append(sum(not isinstance(node.node, MultiOutput) for node in nodes))
        return write_code(scheduler)

    with patch.object(Scheduler, "codegen", count_and_write_code):
        trainer.run()
    return {
        "graphs": graphs[1],
        "later_graphs": graphs[-1] - graphs[1],
        "breaks": sum(counters["graph_break"].values()),
        "kernels": scheduled,
    }


def make_trainer(
    counter: LaunchCounter, depth: int, backend: str | None, amp: bool, small: bool
) -> StudentTeacherTrainer:
    """The trainer as the bundle makes it, with tiny networks, the same views in every step, and marks of the phases."""
    torch.manual_seed(0)
    backbone = EndoFM(img_size=32, patch_size=8, embed_dim=16, depth=depth, num_heads=2)
    network = StudentTeacher(backbone, num_prototypes=32, hidden_dim=16, bottleneck_dim=8)
    sizes = [32, 32] + 8 * [16]
    views = [torch.randn(2, 3, frames, size, size) for frames, size in zip(FRAMES, sizes, strict=True)]
    optimizer = torch.optim.AdamW(weight_decay_groups(network.student), fused=True)
    forward, loss = IterationEvents.FORWARD_COMPLETED, IterationEvents.LOSS_COMPLETED
    backward, step = IterationEvents.BACKWARD_COMPLETED, IterationEvents.MODEL_COMPLETED
    targets: dict[str, Any] = {"targets": "sinkhorn", "queue_length": 16, "koleo_weight": 0.1} if small else {}
    loss_function = SpatialTemporalMatchingLoss(num_prototypes=32, **targets)
    return StudentTeacherTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": views}] * STEPS,
        network=network,
        optimizer=optimizer,
        loss_function=loss_function,
        prepare_batch=lambda batch, *_, **__: (batch["image"], None),
        train_handlers=[
            ScheduleHandler(optimizer, "lr", CosineSchedule(1e-5, 1e-6)),
            ScheduleHandler(optimizer, "weight_decay", CosineSchedule(0.04, 0.4)),
            ScheduleHandler(network, "teacher_momentum", CosineSchedule(0.9, 1.0)),
            ScheduleHandler(loss_function, "teacher_temperature", CosineSchedule(0.02, 0.04)),
            phase_mark(counter, "forward", Events.ITERATION_STARTED),
            phase_mark(counter, "clipping", backward),
            GradientHandler(max_norm=3.0),
            phase_mark(counter, "optimizer", backward),
            phase_mark(counter, "EMA", step),
            TeacherUpdateHandler(),
            phase_mark(counter, "log", forward | loss | step),
            HealthHandler(),
            phase_mark(counter, "loss", forward),
            phase_mark(counter, "backward", loss),
            phase_mark(counter, "", Events.ITERATION_COMPLETED),
        ],
        amp=amp,
        compile=backend is not None,
        compile_kwargs={"backend": backend, "fullgraph": True},
    )


def augmentation(clips: int = 8) -> dict[str, int]:
    """Kernels that make the ten views of a batch of clips: clip by clip, as in workers, and as a GPU makes them."""
    augment, frames = RandAugmentViews(ViewPlan()), torch.zeros(3, sum(FRAMES), 64, 80, dtype=torch.uint8)
    acts: dict[str, Callable[[], object]] = {
        "clip by clip": lambda: [augment.set_random_state(seed)(frames) for seed in range(clips)],
        "joined": lambda: augment_batch(augment, [frames] * clips, range(clips)),
    }
    counts = {}
    for name, act in acts.items():
        with LaunchCounter("views") as counter:
            act()
        counts[name] = counter.kernels["views"]
    return counts


class AllocationCounter(TorchDispatchMode):
    """Follows how many bytes the tensors take that operations give, and those that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count the memory of a tensor until nothing needs it."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._forget, storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _forget(self, storage: int) -> None:
        self.now -= self.alive.pop(storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result


def allocation(
    clips: int = 8,
    checkpointing: bool | Literal["selective"] = False,
    token_drop: float = 0,
    amp: bool = True,
    preset: str = "base",
) -> float:
    """GiB of the tensors that a step of the published pre-training needs at most, networks and optimizer included.

    They are counted on tensors without data, so that neither such a memory nor a GPU is needed. The operations are
    those of a CPU; what an allocator and libraries of a GPU need beside them is not in it.

    Args:
        clips: size of the batch.
        checkpointing: ``activation_checkpointing`` of the backbone.
        token_drop: share of the patch positions that the student does not see.
        amp: with autocast to bfloat16.
        preset: size of the backbone.
    """
    backbone = EndoFM.from_preset(preset, activation_checkpointing=checkpointing, token_drop=token_drop)
    network, loss_function, empty = StudentTeacher(backbone), SpatialTemporalMatchingLoss(), FakeTensorMode()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    for module in (network, loss_function):
        module._apply(empty.from_tensor)
    torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
    optimizer = torch.optim.AdamW(weight_decay_groups(network.student), fused=True)
    packed_clips._pack_once.cache_clear()
    fused = patch.object(SelfAttention, "weigh", staticmethod(F.scaled_dot_product_attention))  # as on a GPU
    with empty, fused, AllocationCounter() as counter:
        views = [torch.randn(clips, 3, view.frames, view.size, view.size) for view in ViewPlan()]
        for tensor in (*network.parameters(), *network.buffers(), *loss_function.buffers()):
            counter.add(tensor)
        for _ in range(2):  # the optimizer's moments are there from the second step on
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                logits = network(views)
            loss = loss_function(*logits)
            del logits
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            network.update_teacher()
    packed_clips._pack_once.cache_clear()  # it holds tensors without data now
    return counter.peak / 2**30
