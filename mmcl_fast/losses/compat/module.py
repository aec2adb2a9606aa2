"""What the modules of this package share: a temperature that may be a tensor, and their `repr`."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mmcl_fast.losses.validation import check_temperature


class LossModule(nn.Module):
    """A loss whose options are attributes under the names of its arguments.

    Attributes:
        shown: Names of the options in `repr`, in the order of the arguments.
    """

    shown: ClassVar[tuple[str, ...]] = ()
    temperature: float | Tensor

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        return ", ".join(f"{name}={_described(getattr(self, name))}" for name in self.shown)


def keep_temperature(module: nn.Module, temperature: float | Tensor) -> None:
    """`temperature` as an attribute of a module that follows it to another device.

    Args:
        module: The loss.
        temperature: A number > 0, or a tensor of one element. An `nn.Parameter` becomes a
            parameter; any other tensor a buffer that `state_dict` leaves out, as the checkpoints of
            the replaced library have no such entry.

    Raises:
        TypeError, ValueError: Neither, or its range.
    """
    check_temperature(without_axes(temperature), None)
    if isinstance(temperature, Tensor) and not isinstance(temperature, nn.Parameter):
        module.register_buffer("temperature", temperature, persistent=False)
    else:
        module.temperature = temperature  # type: ignore[assignment]


def without_axes(scalar: float | Tensor) -> float | Tensor:
    """A tensor of one element as a 0-d one; everything else as it is."""
    # A 0-d tensor, reshaped, would be a node of autograd more.
    if isinstance(scalar, Tensor) and scalar.dim() and scalar.numel() == 1:
        return scalar.reshape(())
    return scalar


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return "<tensor>"
    return getattr(value, "__name__", None) or repr(value)


__all__ = ["LossModule", "keep_temperature", "without_axes"]
