"""One training run on the weights, its samples spread over the processes of a group.

Each process holds, or draws when needed, the noise patches of its own samples, and all weights.
Features travel round a ring, as keys of all queries; gradients of the weights are summed. Every sum
is in the order of ranks, or from the local rank downwards, so reruns are bit-identical, and weights
are the same in every process, bit for bit.

Cost of a step and process, n_r of n samples: 2 m d (3 n_r) + 2 n_r n m flop single-modal, twice the
second term and 4 n_r multi-modal. For each modality W - 1 messages with (n - n_s) m elements leave
a process, n_s the next rank's samples, while it computes with the previous block; and about 2 m d
elements of the gradient (`sample_shards`). Memory of a step: that of n_r samples alone, and twice
the largest share's features; of evaluation and of the run's coefficients: n m elements
(`share_bytes`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from mmcl_fast.config import TrainConfig
from mmcl_fast.config_checks import ROTATED
from mmcl_fast.config_variants import DEFAULTS, variant_of
from mmcl_fast.data.signal_noise.rows import AddedRows, SampleRows, StreamedRows
from mmcl_fast.data.signal_noise.sampling import sample
from mmcl_fast.data.signal_noise.synthetic import TORCH_DTYPES, SignalNoiseData
from mmcl_fast.data.stream.memory import available_bytes
from mmcl_fast.distributed.group import Group, Members, group_of
from mmcl_fast.distributed.sample_shards import GroupShard
from mmcl_fast.engines import Engine, EngineSpec, PrimalEngine, memory_bytes
from mmcl_fast.errors import ConfigError, DataError, MmclError
from mmcl_fast.training.loop import Callback, train_batch
from mmcl_fast.training.resolve import resolve_settings
from mmcl_fast.training.run import Run


def train(
    cfg: TrainConfig,
    group: Group | None = None,
    *,
    samples: Sequence[int] | None = None,
    on_epoch: Callback | None = None,
) -> Run:
    """Train one run in all processes of a group; a collective call.

    Equal to `mmcl_fast.train(cfg)` with engine primal up to the rounding of split sums.

    Args:
        cfg: The same settings in every process; the paper's model, engine auto or primal, data
            explicit or streamed, all negatives.
        group: The processes; default: all.
        samples: Number of samples on each rank, >= 1 and n in all; default: as equal as possible.
        on_epoch: As in `mmcl_fast.train`; called in this process.

    Returns: The same run in every process.
    Raises: ConfigError, DataError: in every process, if any refuses, before work starts.
        RuntimeError, ValueError: there is no group, or this process is not in it.
    """
    group = group_of(group)
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    problem: MmclError | None = None
    resolved, shares = cfg, [0] * size
    try:
        resolved = _resolve(cfg)
        _check_group(resolved, group)
        shares = _shares(resolved, size, samples)
        _check_memory(resolved, shares)
        shared = sample(resolved.replace(data="streamed"))
    except MmclError as error:
        problem = error
    _agree(group, resolved, shares, problem)
    members = Members(group, rank, tuple(shares))
    shard = GroupShard(members, shared.labels)
    local = shared if resolved.data == "streamed" else _held(resolved, shared, shard.samples)

    def build(spec: EngineSpec) -> Engine:
        return PrimalEngine(EngineSpec(spec.configs, [local], spec.device), shard)

    return train_batch([resolved], [shared], on_epoch, build=build).runs([None])[0]


def _resolve(cfg: TrainConfig) -> TrainConfig:
    """The settings in use; refuses those without a form for several processes."""
    supported = {
        "engine": (cfg.engine in ("auto", "primal"), "auto or primal"),
        "data": (cfg.data not in ROTATED, "explicit or streamed"),
        "negatives_per_sample": (cfg.negatives_per_sample is None, "None"),
    }
    for name, (able, expected) in supported.items():
        if not able:
            raise ConfigError(
                f"{name}: expected {expected} in training by several processes, "
                f"got {getattr(cfg, name)}"
            )
    if setting := variant_of(cfg):
        raise ConfigError(
            f"{setting}: expected {DEFAULTS[setting]}, the paper's model, in training by several "
            f"processes, got {getattr(cfg, setting)}; take mmcl_fast.train"
        )
    return resolve_settings(cfg.replace(engine="primal"))


def _check_group(cfg: TrainConfig, group: Group) -> None:
    """The group must be able to send tensors of the device; Gloo sends those of a CPU only."""
    backends = dict(part.split(":") for part in dist.get_backend_config(group).split(","))
    backend = backends.get(cfg.device, "none")
    if backend == "none" or (cfg.device == "cuda" and backend == "gloo"):
        raise ConfigError(
            "device: expected one whose tensors the group can send (gloo: cpu, nccl: cuda), got "
            f"{cfg.device} with backend {backend}"
        )


def _shares(cfg: TrainConfig, size: int, samples: Sequence[int] | None) -> list[int]:
    if samples is None:
        if cfg.n < size:
            raise ConfigError(f"n: expected a sample for each of {size} processes, got {cfg.n}")
        return [cfg.n // size + (rank < cfg.n % size) for rank in range(size)]
    shares = list(samples)
    if len(shares) != size or sum(shares) != cfg.n or min(shares) < 1:
        raise ConfigError(
            f"samples: expected {size} numbers >= 1 that add up to n = {cfg.n}, got {shares}"
        )
    return shares


def share_bytes(cfg: TrainConfig, shares: Sequence[int]) -> int:
    """Predicted memory of the process with the largest share.

    Its part of the run, and the largest of: current and arriving keys with the buffer of a sum; all
    embeddings in the linear probe; all coefficients, of which the run keeps two copies and receives
    a third.
    """
    n, m, sides, itemsize = cfg.n, cfg.m, 1 + cfg.is_multi, TORCH_DTYPES[cfg.dtype].itemsize
    largest = max(2, *shares)
    plain = cfg if cfg.optimizer != "sgd" else cfg.replace(optimizer="gd", batch_size=None)
    own = memory_bytes(plain.replace(n=largest), "primal")
    if cfg.coefficients_every:
        stored = cfg.epochs // cfg.coefficients_every + 1
        own += stored * sides * m * (n - largest) * itemsize
    step = 0
    if len(shares) > 1:
        step = min(2, len(shares) - 1) * largest * m + m * max(cfg.columns, cfg.columns_b)
    end = 0 if cfg.optimizer == "adam" else max(2 * sides, sides + 1) * n * m
    # The linear probe works in float64, on eight times its features (measured at 8000 x 512).
    fitted = max(n, cfg.probe_samples_value)
    probe = 8 * fitted * m * torch.float64.itemsize if cfg.evaluate_every else 0
    return own + max(max(step, end) * itemsize, probe)


def _check_memory(cfg: TrainConfig, shares: Sequence[int]) -> None:
    available, needed = available_bytes(), share_bytes(cfg, shares)
    if available is not None and needed > available:
        raise DataError(
            f"memory: expected a share of at most {available / 2**30:.2f} GiB (free now), got "
            f"{needed / 2**30:.2f} GiB for {max(shares)} of n = {cfg.n} samples at d = {cfg.d}, "
            f"m = {cfg.m}; take {_less_memory(cfg)}"
        )


def _less_memory(cfg: TrainConfig) -> str:
    hints = ["more processes"]
    if cfg.evaluate_every:
        hints.append("evaluate_every = 0")
    if cfg.data == "explicit":
        hints.append("data = streamed")
    return " or ".join(hints)


def _agree(
    group: Group, cfg: TrainConfig, shares: Sequence[int], problem: MmclError | None
) -> None:
    """Raise in every process if one refuses its settings, or settings differ."""
    text = json.dumps([cfg.to_dict(), list(shares)])
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    signatures: list[tuple[int, str]] = [(0, "")] * dist.get_world_size(group)
    dist.all_gather_object(signatures, (digest, str(problem or "")), group=group)
    if problem is not None:
        raise problem
    for rank, (_, message) in enumerate(signatures):
        if message:
            raise ConfigError(
                f"arguments: expected valid ones on every rank, rank {rank}: {message}"
            )
    differing = [rank for rank, (other, _) in enumerate(signatures) if other != signatures[0][0]]
    if differing:
        raise ConfigError(
            f"cfg, samples: expected the same on every rank, got others on rank {differing[0]} "
            "than on rank 0"
        )


def _held(cfg: TrainConfig, shared: SignalNoiseData, samples: range) -> SignalNoiseData:
    """The data with the noise patches of `samples` in memory."""
    stream = partial(StreamedRows, cfg, device=torch.device("cpu"), samples=samples)
    fields = dict(vars(shared))
    fields["noise"] = _collected(stream("a"), cfg.columns, samples)
    if cfg.is_multi:
        fields["noise_b"] = _collected(stream("b"), cfg.columns_b, samples)
    else:
        view = AddedRows(stream("epsilon"), stream("a"))
        fields["augmented"] = _collected(view, cfg.columns, samples)
    return SignalNoiseData(**fields)


def _collected(rows: SampleRows, d: int, samples: range) -> Tensor:
    whole: Tensor | None = None
    for part, x in rows.pieces(None):
        whole = x.new_empty(len(samples), d) if whole is None else whole
        whole[part] = x
    assert whole is not None
    return whole


__all__ = ["share_bytes", "train"]
