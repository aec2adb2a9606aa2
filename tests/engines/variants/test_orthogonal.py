"""Products with orthogonal vectors, entry by entry, against the matrix product."""

from typing import Any

import pytest
import torch

from mmcl_fast import TrainConfig
from mmcl_fast.data.signal_noise.sampling import sample_many
from mmcl_fast.engines import EngineSpec
from mmcl_fast.engines.variants.columns import SpanVectors, held
from mmcl_fast.engines.variants.engine import VariantGramEngine
from mmcl_fast.engines.variants.layout import Layout
from mmcl_fast.engines.variants.modality import Modality
from mmcl_fast.engines.variants.orthogonal import OrthogonalProducts

ODD: dict[str, Any] = {
    "data": "orthogonal", "n": 13, "m": 6, "n_test": 3, "dtype": "float64", "evaluate_every": 0,
}  # fmt: skip
CASES = [
    {"negatives": "all"},  # a view's noise patch is its own sample's
    {"pair_noise": 0.4, "classes": 3, "spurious_norm": 2.0},  # or another's; codes of both patches
    {"stop_gradient": "none", "pair_noise": 0.4, "spurious_norm": 2.0},  # views are columns
    {"negatives": "all", "view_scale": 0.0},  # a view is eps alone
    {"objective": "logistic"},  # no views
]


def products(settings: dict[str, Any]) -> tuple[Layout, torch.Tensor]:
    """K of two runs."""
    cfg = TrainConfig(**ODD | settings)
    configs = [cfg.replace(seed=s, d=1000 + s) for s in range(2)]
    spec = EngineSpec(configs, sample_many(configs), torch.device("cpu"))
    layout = Layout.of(cfg)
    views = held(spec, "augmented") if layout.has_views else None
    vectors = SpanVectors.of(spec, layout, "")
    whole = Modality(vectors, views, cfg.q, picks_samples=False, is_orthogonal=False)
    return layout, whole._gram


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_products_are_those_of_the_matrix(settings: dict[str, Any]) -> None:
    layout, gram = products(settings)
    found = OrthogonalProducts.of(layout, gram)
    assert found is not None
    a = torch.randn(2, 6, layout.columns, dtype=torch.float64)
    ours = found.times(a, torch.full((2, 6, layout.preactivations), torch.nan).double())
    torch.testing.assert_close(ours, a @ gram, rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_any_other_product_is_noticed(settings: dict[str, Any]) -> None:
    layout, gram = products(settings)
    for row, column in ((0, 1), (layout.width, 0), (2, layout.width), (3, gram.shape[2] - 2)):
        other = gram.clone()
        other[1, row, column] += 1e-30 if other[1, row, column] == 0 else 1.0
        assert OrthogonalProducts.of(layout, other) is None or row == column


def test_the_engine_uses_them_where_vectors_stay() -> None:
    def engine(**settings: Any) -> VariantGramEngine:
        cfg = TrainConfig(**ODD | {"negatives": "all"} | settings)
        return VariantGramEngine(EngineSpec([cfg], sample_many([cfg]), torch.device("cpu")))

    assert engine()._modalities[0]._orthogonal is not None
    for others in ({"augment": "per_epoch"}, {"optimizer": "sgd", "batch_size": 4}):
        assert engine(**others)._modalities[0]._orthogonal is None
    assert engine(data="reduced", d=200)._modalities[0]._orthogonal is None
