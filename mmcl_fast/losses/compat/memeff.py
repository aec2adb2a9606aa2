"""The call of memeff 0.3.1 (`memeff.MemoryEfficientCLIPLoss`)."""

from __future__ import annotations

from torch import Tensor

from mmcl_fast.losses.compat.inputs import check_features, check_pairs
from mmcl_fast.losses.compat.module import LossModule, keep_temperature, without_axes
from mmcl_fast.losses.contrastive import info_nce
from mmcl_fast.losses.unit_rows import unit_rows
from mmcl_fast.losses.validation import check_smoothing


class MemoryEfficientCLIPLoss(LossModule):
    """memeff's CLIP loss of one process: `info_nce(..., symmetric=True)`.

    Differs: the gradient is that of the loss, so `stable=True`, memeff's default, is refused: there
    it multiplies the gradient by sqrt(N * temperature). Any temperature, scale of features and
    number of features; on a CPU too; `temperature` may be a tensor that learns.

    Args:
        temperature: Dimensionless, > 0; a number or a tensor of one element. An `nn.Parameter`
            becomes a parameter of the module, any other tensor a buffer that is not in its
            `state_dict`.
        normalized_inputs: The rows have been normalised by the caller.
        stable: False.
        tau_plus: 0.0: the debiased estimate is not built.
        label_smoothing: In 0 .. 1, over both directions' candidates.
        backend: As for `info_nce`.

    Raises:
        TypeError: A temperature or a share that is no number.
        ValueError: Their range; `stable`; `tau_plus`.

    See: mmcl_fast.losses.info_nce.
    """

    shown = (
        "temperature",
        "normalized_inputs",
        "stable",
        "tau_plus",
        "label_smoothing",
        "backend",
    )

    def __init__(
        self,
        temperature: float | Tensor = 0.07,
        normalized_inputs: bool = False,
        stable: bool = False,
        tau_plus: float = 0.0,
        label_smoothing: float = 0.0,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        keep_temperature(self, temperature)
        check_smoothing(label_smoothing)
        if stable:
            raise ValueError(
                "stable: expected False, got True: it multiplies the gradient by "
                "sqrt(N * temperature); put that factor into the learning rate"
            )
        _refuse_debiasing(tau_plus)
        self.normalized_inputs = normalized_inputs
        self.stable = stable
        self.tau_plus = tau_plus
        self.label_smoothing = label_smoothing
        self.backend = backend

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        tau_plus: float | Tensor | None = None,
    ) -> Tensor:
        """The symmetric loss of pairs [N, D].

        Args:
            image_features: [N, D].
            text_features: [N, D], same dtype and device.
            tau_plus: None or 0.0.

        Returns: A scalar.

        Raises:
            TypeError, ValueError: As for `info_nce`; `tau_plus`.
        """
        if tau_plus is not None:
            _refuse_debiasing(tau_plus)
        check_features("image_features", image_features)
        check_features("text_features", text_features)
        check_pairs("text_features", text_features, "image_features", image_features)
        if not self.normalized_inputs:
            image_features, text_features = unit_rows(image_features), unit_rows(text_features)
        return info_nce(
            image_features,
            text_features,
            temperature=without_axes(self.temperature),
            symmetric=True,
            label_smoothing=self.label_smoothing,
            backend=self.backend,
        )


def _refuse_debiasing(tau_plus: float | Tensor) -> None:
    if isinstance(tau_plus, Tensor) or tau_plus != 0.0:
        got = "a tensor" if isinstance(tau_plus, Tensor) else tau_plus
        raise ValueError(
            f"tau_plus: expected 0.0, got {got}: the debiased estimate of the negatives' sum is "
            "not built"
        )


__all__ = ["MemoryEfficientCLIPLoss"]
