"""Output memory of the native generator: allocated, or checked if the caller supplies it."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from mmcl_fast.data.stream.memory import require_memory
from mmcl_fast.data.stream.region import Triple

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
Out = TypeVar("Out", torch.Tensor, npt.NDArray[Any])


def check_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """One of the three output types, by torch dtype or by its name."""
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise TypeError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return found


def empty(shape: Triple, dtype: torch.dtype) -> torch.Tensor:
    """Uninitialised tensor, or MemoryError before the attempt."""
    runs, samples, dims = shape
    require_memory(runs * samples * dims * dtype.itemsize, f"shape {shape} of {name_of(dtype)}")
    return torch.empty(shape, dtype=dtype)


def check_out(out: object, shape: Triple, dtype: torch.dtype) -> None:
    """Raise unless `out` is writable C-contiguous CPU memory of exactly this shape and dtype."""
    if isinstance(out, torch.Tensor):
        _check_tensor(out)
        got = name_of(out.dtype)
    elif isinstance(out, np.ndarray):
        if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
            raise ValueError(
                "out: expected a C-contiguous, aligned and writable array, got "
                f"strides {out.strides} for shape {out.shape}, writable {out.flags.writeable}"
            )
        got = out.dtype.name if out.dtype.isnative else f"byte-swapped {out.dtype.name}"
    else:
        raise TypeError(f"out: expected a torch tensor or NumPy array, got {type(out).__name__}")
    if got != name_of(dtype):
        raise TypeError(f"out: expected dtype {name_of(dtype)}, got {got}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out: expected shape {shape}, got {tuple(out.shape)}")


def writable_view(out: torch.Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """NumPy view of checked memory; bfloat16, which NumPy lacks, as uint16 bits."""
    if isinstance(out, np.ndarray):
        return out
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)  # as an in-place torch operation does
    bits = out.view(torch.uint16) if out.dtype is torch.bfloat16 else out
    view: npt.NDArray[Any] = bits.numpy()
    return view


def name_of(dtype: torch.dtype) -> str:
    """Name without the `torch.` in front."""
    return str(dtype).removeprefix("torch.")


def _check_tensor(out: torch.Tensor) -> None:
    if out.device.type != "cpu" or out.layout is not torch.strided:
        raise ValueError(f"out: expected a dense CPU tensor, got {out.layout} on {out.device}")
    if out.requires_grad:
        raise ValueError("out: expected a tensor without gradient, got requires_grad=True")
    if not out.is_contiguous():
        raise ValueError(
            "out: expected a contiguous tensor, got "
            f"strides {out.stride()} for shape {tuple(out.shape)}"
        )


__all__ = ["DTYPES", "Out", "check_dtype", "check_out", "empty", "name_of", "writable_view"]
