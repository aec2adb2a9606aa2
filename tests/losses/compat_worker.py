"""One of two processes: our modules and those of other libraries on the same rows."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.bench.peers.registry import import_bare
from mmcl_fast.losses import compat
from tests.support.budget import value_and_grads

WORLD, N, D = 2, 5, 4
FLAGS = [(False, False), (False, True), (True, False), (True, True)]  # with grad, local
METRIC_LEARNING = ["NTXentLoss", "SupConLoss"]
FOUR_DIRECTIONS = ("query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc")
Loss = Callable[..., Tensor]


def inputs(rank: int, *, scaled: bool = False) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(50 + rank)
    x, y = normalize(torch.randn(2, N, D, dtype=torch.float64, generator=g), dim=-1)
    scale = {"scale": torch.tensor(6.0, dtype=torch.float64)} if scaled else {}
    return {"x": x, "y": y, **scale}


def of_open_clip(rank: int) -> dict[str, tuple[Loss, Loss, bool]]:
    """Ours, theirs, and whether there is a scale."""
    module = import_bare("open_clip.loss")
    found: dict[str, tuple[Loss, Loss, bool]] = {}
    for with_grad, local in FLAGS:
        ours, theirs = (
            kind(local, with_grad, rank=rank, world_size=WORLD)
            for kind in (compat.ClipLoss, module.ClipLoss)
        )

        def weighed(loss: Loss) -> Loss:
            def logits(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
                first, second = loss.get_logits(x, y, scale)  # type: ignore[attr-defined]
                weights = torch.linspace(1, 2, first.numel(), dtype=first.dtype).view_as(first)
                return (first * weights).sum() + (second * weights.flip(0)).sum() * (1 + rank)

            return logits

        name = f"with_grad={with_grad}, local={local}"
        found[f"loss, {name}"] = ours, theirs, True
        found[f"logits, {name}"] = weighed(ours), weighed(theirs), True
    return found


def of_lightly() -> dict[str, tuple[Loss, Loss, bool]]:
    ntx = import_bare("lightly.loss.ntx_ent_loss", without="lightly.models.utils")
    dcl = import_bare("lightly.loss.dcl_loss")
    weighted = {"gather_distributed": True, "weight_fn": lambda x, y: 1 + x[:, 0] * y[:, 1]}
    gathered = {"gather_distributed": True}
    return {
        "NTXentLoss": (compat.NTXentLoss(**gathered), ntx.NTXentLoss(**gathered), False),
        "DCLLoss": (compat.DCLLoss(**gathered), dcl.DCLLoss(**gathered), False),
        "DCLLoss, weighted": (compat.DCLLoss(**weighted), dcl.DCLLoss(**weighted), False),
        "DCLWLoss": (compat.DCLWLoss(**gathered), dcl.DCLWLoss(**gathered), False),
    }


def of_metric_learning(rank: int) -> dict[str, tuple[Loss, Loss, bool]]:
    from pytorch_metric_learning import losses
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

    from mmcl_fast.losses.compat import metric_learning as ours

    labels = torch.tensor([0, 0, 1, 2, rank])
    found: dict[str, tuple[Loss, Loss, bool]] = {}
    for name in METRIC_LEARNING:
        for efficient in (False, True):

            def wrapped(module: Any, name: str = name, efficient: bool = efficient) -> Loss:
                loss = DistributedLossWrapper(getattr(module, name)(), efficient)
                return lambda x, y: loss(x, labels) + 0 * y.sum()

            found[f"{name}, efficient={efficient}"] = wrapped(ours), wrapped(losses), False
    return found


def of_sentence_transformers() -> dict[str, tuple[Loss, Loss, bool]]:
    from sentence_transformers.sentence_transformer import losses

    from mmcl_fast.losses.compat import sentence_transformers as ours

    options: dict[str, dict[str, Any]] = {
        "pairs": {},
        "four": {"directions": FOUR_DIRECTIONS},
        "symmetric": {"directions": FOUR_DIRECTIONS[:2], "partition_mode": "per_direction"},
    }

    def made(module: Any, **options: Any) -> Loss:
        loss = module.MultipleNegativesRankingLoss(
            torch.nn.Identity(), gather_across_devices=True, **options
        )
        return lambda x, y: loss.compute_loss_from_embeddings([x, y, y.flip(0)], None)

    return {
        name: (made(ours, **chosen), made(losses, **chosen), False)
        for name, chosen in options.items()
    }


def bank_of_all_ranks(rank: int) -> Tensor:
    loss = compat.NTXentLoss(0.2, (3 * N, D), gather_distributed=True)
    tensors = inputs(rank)
    loss(tensors["x"].requires_grad_(), tensors["y"])
    return loss.memory_bank.bank


def main(rank: int, rendezvous: str, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    # The peers use calls that torch has deprecated, and copy tensors with a warning.
    warnings.simplefilter("ignore")
    found = {}
    pairs: dict[str, tuple[Loss, Loss, bool]] = {}
    if find_spec("open_clip"):
        pairs |= of_open_clip(rank)
    if find_spec("lightly"):
        pairs |= of_lightly()
    if find_spec("pytorch_metric_learning"):
        pairs |= of_metric_learning(rank)
    if find_spec("sentence_transformers"):
        pairs |= of_sentence_transformers()
    for name, (ours, theirs, scaled) in pairs.items():
        for whose, loss in (("ours", ours), ("theirs", theirs)):
            tensors = inputs(rank, scaled=scaled)
            found[f"{name}/{whose}"] = value_and_grads(
                lambda loss=loss, **t: loss(*t.values()), tensors
            )
    found["bank"] = bank_of_all_ranks(rank)
    torch.save(found, out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
