"""README's table of speeds: one row an operation, beside its fastest peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..cpu.small_loss import EXCLUDING
from .gpu_tables import GPU
from .tables import RESULTS, latest, table, wrap

CPU = RESULTS / "cpu.jsonl"
PEERS = {
    "times_jax": "JAX jit + scan",
    "times_eager": "eager PyTorch",
    "times_mkl": "MKL",
    "times_numpy": "NumPy",
    "times_torch": "torch",
    "dense": "dense autograd",
    "dense, compiled": "dense, `torch.compile`",
    "eager, tuned, compiled": "eager PyTorch, `torch.compile`",
    "eager, tuned, compiled, bf16 autocast": "eager PyTorch, `torch.compile`, bf16",
}
Row = Mapping[str, Any]


def headline_table() -> str:
    """Eight rows: four of one CPU thread with their small case, three of a GPU."""
    train = _one(latest(CPU, "train"), variant="native, 1 run", modality="single")
    losses = [r for r in latest(CPU, "loss") if r["settings"]["loss"] == "symmetric"]
    large = _one(losses, variant="mmcl_fast", n=2048, d=256)
    batches = latest(CPU, "small_loss")
    small = _one(batches, variant="mmcl_fast", loss=EXCLUDING.name, n=64, d=128, kind="step")
    step = _one(latest(CPU, "primal"), variant="primal", modality="single")
    normals = _one(latest(CPU, "normals"), variant="avx512", values=2**20)
    lines = [
        ["a run of Figure 1, inner products included", _ms(train["cpu_ms_per_run"]), *_peer(train)],
        ["symmetric InfoNCE, N = 2,048, D = 256", _ms(large["cpu_ms"]), *_peer(large)],
        [
            "InfoNCE with `exclude_mask`, N = 64, D = 128",
            f"{small['cpu_us']['p50'] / 1e3:.2f} ms",
            *_peer(small),
        ],
        ["a step at n = d = 4,096, m = 512", _ms(step["cpu_ms"]), *_peer(step)],
        ["float32 normals", f"{normals['giga_per_s']:.1f} G/s", *_peer(normals)],
        *_gpu_lines(),
    ]
    head = ["", "mmcl-fast", "fastest peer", "times as fast"]
    gpu = latest(GPU, "trajectory")[0]
    text = (
        f"CPU rows: one thread of an {train['cpu'].partition(' (')[0]}, float32. GPU rows: one "
        f"{gpu['device']['gpu']}. Losses: forward and backward. Below 1 the peer is faster."
    )
    return "\n\n".join((table(head, lines), wrap(text)))


def _one(rows: Sequence[Row], *, variant: str, **settings: object) -> Row:
    (row,) = (
        row
        for row in rows
        if row["variant"] == variant
        and all(row["settings"][name] == value for name, value in settings.items())
    )
    return row


def _ms(quantiles: Mapping[str, float]) -> str:
    value = quantiles["p50"]
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _times(ratio: float) -> str:
    # Ratios of a later run on another machine agree in about two digits.
    decimals = 0 if ratio >= 10 else 1 if ratio >= 1 else 2
    return f"{ratio:.{decimals}f}"


def _peer(row: Row) -> list[str]:
    """Name of the fastest peer of a row, and how many times faster the row is."""
    found = {
        key.removeprefix("times "): value
        for key, value in row.items()
        if (key.startswith("times ") or key in PEERS) and value
    }
    name = min(found, key=lambda peer: found[peer])
    return [PEERS.get(name, name), _times(found[name])]


def _gpu_lines() -> list[list[str]]:
    runs = [r for r in latest(GPU, "trajectory") if r["settings"]["modality"] == "single"]
    rate = _fastest(runs, "triton, ieee", lambda r: float(r["runs_per_s"]), "tf32")
    losses = [
        r
        for r in latest(GPU, "loss")
        if [r["settings"][k] for k in ("loss", "n", "d")] == ["symmetric", 32768, 128]
    ]
    loss = _fastest(losses, "mmcl_fast", lambda r: 1 / float(r["ms"]["p50"]))
    steps = [
        r
        for r in latest(GPU, "primal")
        if r["settings"]["modality"] == "single" and r["settings"]["n"] == 16384
    ]
    step = _fastest(steps, "primal, bf16", lambda r: 1 / float(r["ms"]["p50"]))
    lines = (
        ("runs of Figure 1, GPU", rate, f"{rate[0]:,.0f} runs/s"),
        ("symmetric InfoNCE, bfloat16, N = 32,768, D = 128, GPU", loss, f"{1 / loss[0]:.2f} ms"),
        ("a step at n = 16,384, d = 4,096, m = 2,048, bf16, GPU", step, f"{1 / step[0]:.2f} ms"),
    )
    return [
        [title, shown, PEERS.get(peer, peer), _times(ratio)]
        for title, (_, peer, ratio), shown in lines
    ]


def _fastest(
    rows: Sequence[Row], ours: str, rate: Callable[[Row], float], lower: str = "\0"
) -> tuple[float, str, float]:
    """Our rate, the name of the fastest peer of no lower precision, and the quotient."""
    family = ours.partition(",")[0]
    mine = rate(next(row for row in rows if row["variant"] == ours))
    peers = {
        row["variant"]: rate(row)
        for row in rows
        if not row["variant"].startswith((family, "train_many"))
        and not row["variant"].endswith(lower)
        and "ms" in row
    }
    best = max(peers, key=lambda name: peers[name])
    return mine, best, mine / peers[best]


__all__ = ["headline_table"]
