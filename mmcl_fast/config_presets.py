"""Named settings, and which of the paper's are inferred (`docs/claims.md`)."""

from __future__ import annotations

from types import MappingProxyType

from mmcl_fast.config import TrainConfig

# Named settings, tested against what the paper states.
PRESETS = MappingProxyType(
    {
        "figure1": TrainConfig(),
        "figure1-multi": TrainConfig(modality="multi"),
    }
)

# Not stated in the paper; chosen as the reading whose four panels fit the printed axes and claims.
INFERRED = MappingProxyType(
    {
        "sigma_0": "not stated; 0.001 fits the printed signal and noise panels",
        "tau": "not stated; 1/m, the un-normalised similarity at temperature 1",
        "negatives_per_sample": "M is not stated; all samples of the other label",
        "augment": "not stated; one fixed draw of eps",
        "head": "not stated; logistic regression fitted on the training embeddings, "
        "mean logistic loss + |w|^2 / (2 n), unpenalised intercept, no standardisation",
    }
)

__all__ = ["INFERRED", "PRESETS"]
