"""One process of the group: runs every case and writes what it found. Started by the tests."""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from mmcl_fast.bench.peers.registry import import_bare
from mmcl_fast.distributed import (
    DistributedInfoNCELoss,
    DistributedSigLIPLoss,
    DistributedSupConLoss,
    clip_loss,
)
from mmcl_fast.distributed.sample_shards import GroupShard
from mmcl_fast.engines.paper_loss.label_halves import Halves
from mmcl_fast.errors import MmclError
from mmcl_fast.losses import ClipLoss, SigLipLoss
from tests.distributed.cases import (
    CASES,
    EVEN,
    GROUPS,
    MODES,
    NCCL,
    OPEN_CLIP,
    PAIR,
    UNEVEN,
    WATCHED,
    WORLD,
    Case,
    Towers,
    distributed,
    part_of,
    pictures,
    tensors_of,
)
from tests.distributed.train_cases import (
    FOUR,
    PROCESS,
    REFUSED,
    SINGLE_PRECISION,
    TRAIN_CASES,
    peaks_of_wide_runs,
    trained,
)

FEATURES = ("query", "key")
OF_OPEN_CLIP = {"gather": "gather", "ring": "bidir"}


class Watch(TorchDispatchMode):
    """Entries of the largest tensor that any operation returned, and flop of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.out:
            self.flop += 2 * out.numel() * args[0].shape[1]
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.entries = max(self.entries, x.numel())
        return out


def own_part(case: Case, name: str, x: Tensor, rank: int) -> Tensor:
    """What this rank has of a tensor of the whole batch."""
    if name == "extra_negatives":
        return x[part_of(case.extra, rank)]
    if name == "hard_negatives":
        return x[part_of(case.rows, rank), : case.hard[rank]]
    return x[part_of(case.rows, rank)] if name in FEATURES else x


def run(
    case: Case,
    mode: str,
    group: Any,
    rank: int,
    watch: AbstractContextManager[Any],
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Value, and gradients of everything that learns, on this rank of the group."""
    part = part_of(case.rows, rank)
    leaves = {
        name: own_part(case, name, x, rank)
        .to(device, copy=True)
        .requires_grad_(name not in case.frozen)
        for name, x in tensors_of(case).items()
    }
    loss = distributed(case, mode, group, part)
    for _ in range(case.calls):
        for x in leaves.values():
            x.grad = None
        with watch:
            value = loss(**leaves)
            (value * case.upstream[rank]).backward()
    grads = {
        name: torch.zeros_like(x) if x.grad is None else x.grad
        for name, x in leaves.items()
        if name not in case.frozen
    }
    return {name: x.cpu() for name, x in {"value": value.detach(), **grads}.items()}


def wrapped(mode: str, rank: int) -> dict[str, Tensor]:
    """Parameter gradients of a model in DistributedDataParallel."""
    rows = (4, 6, 3)
    model = DistributedDataParallel(Towers())
    part = part_of(rows, rank)
    images, texts, scale = model(*(x[part] for x in pictures(rows)))
    clip_loss(images, texts, scale, mode=mode).backward()
    return {name: p.grad for name, p in model.module.named_parameters()}


def fully_sharded(rank: int) -> dict[str, Tensor]:
    """The same of a model under FSDP2, whose scale must have an axis to be sharded along."""
    rows = (4, 6, 3)
    model = Towers()
    model.log_scale = torch.nn.Parameter(model.log_scale.detach()[None])
    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    part = part_of(rows, rank)
    clip_loss(*model(*(x[part] for x in pictures(rows)))).backward()
    return {name: p.grad.full_tensor() for name, p in model.named_parameters()}


def open_clips(mode: str, rank: int) -> dict[str, Tensor]:
    """The same through open_clip's calls: gradients of both losses' sum."""
    rows = (4, 6, 3)
    model = DistributedDataParallel(Towers())
    part = part_of(rows, rank)
    images, texts, scale = model(*(x[part] for x in pictures(rows)))
    clip = ClipLoss(gather_with_grad=True, rank=rank, world_size=WORLD)
    sigmoid = SigLipLoss(rank=rank, world_size=WORLD, dist_impl=OF_OPEN_CLIP[mode])
    (clip(images, texts, scale) + sigmoid(images, texts, scale, -1.0)).backward()
    return {name: p.grad for name, p in model.module.named_parameters()}


def open_clip_options(
    loss: Callable[..., Tensor], group: Any, rank: int, rows: tuple[int, ...]
) -> dict[str, Tensor]:
    """Value, and parameter gradients of a model in DistributedDataParallel."""
    model = DistributedDataParallel(Towers(), process_group=group)
    part = part_of(rows, rank)
    value = loss(*model(*(x[part] for x in pictures(rows))))
    value.backward()
    grads = {name: p.grad for name, p in model.module.named_parameters()}
    return {"value": value.detach(), **grads}


def all_open_clip_options(groups: dict[tuple[int, ...], Any], rank: int) -> dict[str, Any]:
    """Of ours in both modes, and of open_clip's own loss where it is installed."""
    found: dict[str, Any] = {}
    for options in OPEN_CLIP:
        switches = dict(zip(("gather_with_grad", "local_loss"), options, strict=True))
        for ranks, rows in ((GROUPS[0], EVEN), (GROUPS[0], UNEVEN), (PAIR, (5, 2))):
            if rank not in ranks:
                continue
            group = groups[ranks]
            for mode in MODES:
                ours = partial(clip_loss, group=group, mode=mode, **switches)
                found[f"clip_options/{options}/{rows}/{mode}"] = open_clip_options(
                    ours, group, ranks.index(rank), rows
                )
        if find_spec("open_clip") is not None:
            theirs = import_bare("open_clip.loss").ClipLoss(rank=rank, world_size=WORLD, **switches)
            with warnings.catch_warnings():
                # What open_clip gathers with is deprecated in torch.
                warnings.simplefilter("ignore")
                found[f"clip_options/{options}/theirs"] = open_clip_options(
                    theirs, None, rank, EVEN
                )
    return found


def compiled(mode: str, rank: int) -> dict[str, Tensor]:
    """A product before the loss, both under torch.compile."""
    case = CASES[1]
    part = part_of(case.rows, rank)
    x = {name: tensor[part] for name, tensor in tensors_of(case).items() if name in FEATURES}
    leaf = x["query"].clone().requires_grad_()
    loss = DistributedInfoNCELoss(temperature=case.temperature, symmetric=True, mode=mode)
    whole = torch.compile(lambda x, y: 1.0 * loss(1.0 * x, y), backend="eager")
    with warnings.catch_warnings():
        # Torch looks at the gradient of what flows over a break in its graph.
        warnings.filterwarnings("ignore", message="The .grad attribute")
        value = whole(leaf, x["key"])
    value.backward()
    return {"value": value.detach(), "query": leaf.grad}


def evaluated(mode: str, rank: int) -> Tensor:
    """Without gradients."""
    case = CASES[1]
    part = part_of(case.rows, rank)
    x = tensors_of(case)
    with torch.no_grad():
        return clip_loss(
            x["query"][part].requires_grad_(), x["key"][part], 1 / x["temperature"], mode=mode
        )


def refusals(rank: int) -> dict[str, Callable[[], object]]:
    """Calls that must be refused on every rank; rank 1 is the odd one out."""
    odd = rank == 1
    x = torch.ones(4, 5 if odd else 6)
    good = torch.ones(4, 6)
    half = good.half() if odd else good
    learns = good.clone().requires_grad_(odd)
    loss = DistributedInfoNCELoss()
    ring, other = (
        DistributedInfoNCELoss(mode="ring" if odd else "gather"),
        DistributedSigLIPLoss(mode="gather"),
    )
    outside = dist.GroupMember.NON_GROUP_MEMBER
    twice = good.clone().requires_grad_()
    return {
        "features": lambda: loss(x, x),
        "dtype": lambda: loss(half, half),
        "mode": lambda: ring(good, good),
        "loss": lambda: (other if odd else loss)(good, good),
        "requires_grad": lambda: loss(learns, good),
        "rows": lambda: loss(good, good[: 3 if odd else 4]),
        "labels": lambda: DistributedSupConLoss()(good, torch.ones(4) if odd else torch.arange(4)),
        "extra_negatives": lambda: loss(good, good, extra_negatives=None if odd else good),
        "hard_negatives": lambda: loss(good, good, hard_negatives=good[:, None] if odd else None),
        "symmetric": lambda: DistributedInfoNCELoss(symmetric=True)(
            good, good, extra_negatives=good
        ),
        "local_loss": lambda: clip_loss(good, good, 1.0, local_loss=odd),
        "gather_with_grad": lambda: clip_loss(good, good, 1.0, gather_with_grad=not odd),
        "label_smoothing": lambda: DistributedInfoNCELoss(label_smoothing=0.1 * odd)(good, good),
        "scale": lambda: clip_loss(good, good, "large" if odd else 10.0),
        "empty": lambda: loss(good[: 0 if odd else 4], good[: 0 if odd else 4]),
        "outside": lambda: clip_loss(good, good, 10.0, group=outside),
        "twice": lambda: (
            torch.autograd.grad(loss(twice, good), twice, create_graph=True)[0].sum().backward()
        ),
    }


def message(call: Callable[[], object]) -> str:
    try:
        call()
    except (RuntimeError, TypeError, ValueError, MmclError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def on_cpus(rank: int) -> dict[str, Any]:
    """Every case, in groups of every size."""
    groups = {
        ranks: dist.group.WORLD if len(ranks) == WORLD else dist.new_group(ranks, sort_ranks=False)
        for ranks in GROUPS
    }
    found: dict[str, Any] = {}
    for case in CASES:
        if rank not in case.group:
            continue
        group, local = groups[case.group], case.group.index(rank)
        for mode in MODES:
            for name in (mode, f"{mode}/again"):
                found[f"{case.id}/{name}"] = run(case, mode, group, local, nullcontext())
    for mode in MODES:
        for case in WATCHED:
            watch = Watch()
            run(case, mode, groups[case.group], rank, watch)
            found[f"{case.id}/{mode}"] = watch.entries, watch.flop
        found[f"ddp/{mode}"] = wrapped(mode, rank)
        found[f"open_clip/{mode}"] = open_clips(mode, rank)
        found[f"compiled/{mode}"] = compiled(mode, rank)
        found[f"no_grad/{mode}"] = evaluated(mode, rank)
    found["fsdp"] = fully_sharded(rank)
    found |= all_open_clip_options(groups, rank)
    for name, call in refusals(rank).items():
        found[f"refusal/{name}"] = message(call)
    for case in (*TRAIN_CASES, *SINGLE_PRECISION):
        if rank in case.group:
            for name in (case.cfg.seed, "again")[: 1 + case.repeat]:
                found[f"train/{case.id}/{name}"] = trained(case, groups[case.group])
    for name, refused in REFUSED.items():
        found[f"train/refusal/{name}"] = message(partial(refused, rank))
    return found


def on_gpus(rank: int) -> dict[str, Any]:
    """The cases for NCCL, one GPU a process."""
    torch.cuda.set_device(rank)
    return {
        f"{case.id}/{name}": run(case, mode, None, rank, nullcontext(), f"cuda:{rank}")
        for case in NCCL
        for mode in MODES
        for name in (mode, f"{mode}/again")
    }


def by_four(rank: int) -> dict[str, Any]:
    """Training runs of four processes, last of all one that fails in one of them."""
    everyone = dist.group.WORLD
    assert everyone is not None
    found: dict[str, Any] = {}
    alone = [dist.new_group([k]) for k in range(4)][rank]
    if PROCESS.exists():
        found["peaks"] = peaks_of_wide_runs(everyone, alone)
    for case in FOUR:
        found[f"train/{case.id}/{case.cfg.seed}"] = trained(case, everyone)
    impatient = dist.new_group(timeout=timedelta(seconds=2))
    start = time.monotonic()
    found["error"] = message(partial(failing, rank, impatient)), time.monotonic() - start
    return found


def failing(rank: int, group: dist.ProcessGroup) -> None:
    """A run that one process leaves in the middle of an epoch, without ending."""
    keys, calls = GroupShard.keys, itertools.count()

    def broken(self: GroupShard, *arguments: Any) -> Iterator[Halves]:
        for block in keys(self, *arguments):
            if rank == 1 and next(calls) == 5:
                raise RuntimeError("of this rank alone")
            yield block

    GroupShard.keys = broken  # type: ignore[method-assign]
    trained(FOUR[0], group)


def main(job: str, rank: int, size: int, rendezvous: str, out: Path) -> None:
    torch.set_num_threads(1)
    backend = "nccl" if job == "nccl" else "gloo"
    dist.init_process_group(
        backend,
        init_method=rendezvous,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
        device_id=torch.device("cuda", rank) if backend == "nccl" else None,
    )
    jobs = {"gloo": on_cpus, "nccl": on_gpus, "training": by_four}
    torch.save(jobs[job](rank), out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
