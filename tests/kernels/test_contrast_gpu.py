"""What only hardware shows: bfloat16 products at size, long offsets, memory, no waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmcl_fast import info_nce, reference
from mmcl_fast.losses.contrast import Contrast, Requested
from mmcl_fast.losses.triton_backend import contrast_forward

from .contrast_problems import UNIT, at_once, in_two, uniform

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def features(n: int, d: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(CUDA).manual_seed(seed)
    drawn = torch.randn(n, d, generator=generator, device=CUDA)
    return torch.nn.functional.normalize(drawn).to(dtype)


@pytest.mark.parametrize("d", [64, 100, 128, 256, 512])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_large_batch(dtype: torch.dtype, d: int) -> None:
    n, t = 8192 + 37, torch.tensor(0.05, device=CUDA)
    query, key = features(n, d, dtype), features(n, d, dtype, seed=1)
    ours = at_once(Contrast(query, key, t, symmetric=True), 1.0 / n)
    q, k = (x.double().requires_grad_() for x in (query, key))
    loss = reference.info_nce(q, k, temperature=t.double(), symmetric=True)
    loss.backward()
    assert abs(ours["losses"].double().mean().item() - loss.item()) < 1e-5 * loss.item()
    # Features have norm 1, and the weights of a row add up to at most 2 / n.
    budget = (UNIT[dtype] + 1e-5) * 2 / n / t.item()
    for mine, exact in ((ours["query"], q.grad), (ours["key"], k.grad)):
        assert exact is not None
        assert (mine.double() - exact).norm(dim=1).max().item() < budget


@pytest.mark.parametrize("d", [64, 512])
def test_same_bits_on_every_run(d: int) -> None:
    n = 5000
    index = torch.randint(0, 100, (n,), generator=torch.Generator().manual_seed(0)).to(CUDA)
    t = torch.tensor(0.1, device=CUDA)
    for options in ({"symmetric": True}, {"positive": index}):
        contrast = Contrast(
            features(n, d, torch.bfloat16), features(n, d, torch.bfloat16, 1), t, **options
        )
        upstream = torch.randn(n, generator=torch.Generator().manual_seed(1)).to(CUDA)
        first, second = at_once(contrast, 1.0), in_two(contrast, upstream)
        for _ in range(5):
            for old, new in (
                (first, at_once(contrast, 1.0)),
                (second, in_two(contrast, upstream)),
            ):
                assert all(torch.equal(old[name], new[name]) for name in old)


def test_rows_beyond_the_reach_of_32_bits() -> None:
    d, stride = 64, 2**26
    memory = torch.empty(39 * stride + d, dtype=torch.float16, device=CUDA)
    far = memory.as_strided((40, d), (stride, 1))
    far.copy_(features(40, d, torch.float16))
    near = far.contiguous()
    t = torch.tensor(0.1, device=CUDA)
    ours, requests = (at_once(Contrast(x, x.clone(), t, symmetric=True), 1.0) for x in (far, near))
    assert all(torch.equal(ours[name], requests[name]) for name in requests)


def test_more_rows_than_a_short_grid_axis_has() -> None:
    n, m = 2**21, 20
    contrast = Contrast(
        features(n, 512, torch.bfloat16),
        features(m, 512, torch.bfloat16, 1),
        torch.tensor(0.1, device=CUDA),
        positive=torch.arange(n, device=CUDA) % m,
    )
    ours = at_once(contrast, 1.0)
    end = replace(contrast, query=contrast.query[-40:], positive=contrast.positive[-40:])
    assert torch.allclose(ours["losses"][-40:], at_once(end, 1.0)["losses"], rtol=1e-5)


@pytest.mark.parametrize("d", [128, 768])
def test_memory_does_not_grow_with_the_scores(d: int) -> None:
    n = 32768
    query, key = features(n, d, torch.bfloat16), features(n, d, torch.bfloat16, 1)
    contrast = Contrast(query, key, torch.tensor(0.05, device=CUDA), symmetric=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    at_once(contrast, 1.0)
    used = torch.cuda.max_memory_allocated() - before
    scores = 4 * n * n
    assert used < (scores // 4 if d == 128 else scores), used


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_nothing_waits_for_the_device() -> None:
    contrast = Contrast(
        features(300, 64, torch.bfloat16),
        features(300, 64, torch.bfloat16, 1),
        torch.tensor(0.1, device=CUDA),
        labels=(torch.arange(300, device=CUDA) % 3,) * 2,
        symmetric=True,
    )
    requested = Requested(query=True, key=True, temperature=True)
    contrast_forward(contrast, requested, 1.0)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        contrast_forward(contrast, requested, 1.0)
        in_two(contrast, uniform(contrast, 1.0))
    finally:
        torch.cuda.set_sync_debug_mode("default")


# torch 2.11 warns of what its own compiler does, more than once.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_step() -> None:
    query = features(500, 96, torch.bfloat16).requires_grad_()
    key = features(500, 96, torch.bfloat16, 1).requires_grad_()

    def step(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return info_nce(q, k, temperature=0.07, symmetric=True)

    eager, compiled = step(query, key), torch.compile(step, fullgraph=True)(query, key)
    assert torch.equal(eager, compiled)
