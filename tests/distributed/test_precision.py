"""What travels between ranks is as precise as what is computed, whatever the features' dtype."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl_fast.distributed.exchange import Merge, Payload, Visit
from mmcl_fast.distributed.group import Members
from mmcl_fast.distributed.problem import LocalProblem
from mmcl_fast.distributed.sigmoid import sigmoid_pass
from mmcl_fast.distributed.softmax import softmax_gradients, softmax_statistics
from mmcl_fast.losses.contrast import Contrast, Requested


class Mirror:
    """A trip to one other rank, which has the same rows as this one."""

    results: list[Tensor]

    def __init__(self, members: Members, payload: Payload) -> None:
        self.payload = payload

    def run(self, visit: Visit, merge: Merge) -> Tensor | None:
        result = visit(self.payload)
        assert result is not None
        self.results.append(result.clone())
        return result


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_results_travel_in_float32(
    form: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mirror, "results", [], raising=False)
    g = torch.Generator().manual_seed(2)
    x, y = (normalize(torch.randn(40, 24, generator=g)).to(dtype) for _ in range(2))
    members = Members(None, 0, (40, 40))  # type: ignore[arg-type]
    local = Contrast(x, y, torch.tensor(0.2), symmetric=True)
    requested = Requested(query=True, key=True)
    if form == "sigmoid":
        local = replace(local, form="sigmoid", symmetric=False, bias=torch.tensor(-1.0))
        sigmoid_pass(local, members, Mirror, requested, 1 / 80)
    else:
        problem = LocalProblem(local)
        _, statistics = softmax_statistics(problem, members, Mirror)
        arguments = problem, members, Mirror, requested
        softmax_gradients(*arguments, extra_learns=False, weight=1 / 80, saved=statistics)
    assert Mirror.results
    for result in Mirror.results:
        assert result.dtype == torch.float32
        assert not torch.equal(result, result.to(dtype).float())
