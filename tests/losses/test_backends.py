from __future__ import annotations

import pytest
import torch

from mmcl_fast.errors import BackendUnavailableError, ConfigError
from mmcl_fast.losses import backends
from mmcl_fast.losses.backends import BACKENDS, Backend, Problem, check_name, choose, module_of

PROBLEM = Problem(4, 6, 3, torch.float32, torch.device("cpu"))


def test_every_backend_has_every_function() -> None:
    functions = [name for name in vars(backends.Implementation) if not name.startswith("_")]
    assert functions
    for backend in BACKENDS.values():
        module = module_of(backend.name)
        assert all(callable(getattr(module, name)) for name in functions)


def test_auto_takes_the_first_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Backend("first", "no_such_module", lambda problem: "needs luck")
    second = Backend("second", "no_such_module", lambda problem: None)
    monkeypatch.setattr(backends, "BACKENDS", {"first": first, "second": second} | BACKENDS)
    assert choose("auto", PROBLEM).name == "second"
    assert choose("torch", PROBLEM).name == "torch"
    with pytest.raises(BackendUnavailableError, match=r"^first: needs luck$"):
        choose("first", PROBLEM)


def test_auto_gives_every_reason_when_none_can() -> None:
    problem = PROBLEM._replace(dtype=torch.int64)
    expected = "torch: expected dtype float16, bfloat16, float32, float64, got int64"
    with pytest.raises(BackendUnavailableError) as caught:
        choose("torch", problem)
    assert str(caught.value) == expected
    with pytest.raises(BackendUnavailableError) as caught:
        choose("auto", problem)
    first, second = str(caught.value).split("; ")
    assert first.startswith("triton: expected tensors on CUDA")
    assert second == expected


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match=r'^backend: expected one of "auto", "triton", "torch", got'
    ):
        check_name("cutlass")


def test_a_module_is_imported_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = Backend("lazy", "mmcl_fast.no_such_module", lambda problem: None)
    monkeypatch.setitem(BACKENDS, "lazy", lazy)
    assert choose("lazy", PROBLEM) is lazy
    with pytest.raises(ModuleNotFoundError):
        module_of("lazy")
