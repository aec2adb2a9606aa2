"""The loss of transformers' CLIP and SigLIP, by the swap of docs/howto/training_libraries.md."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmcl_fast.losses.compat import ClipLoss, SigLipLoss

transformers = pytest.importorskip("transformers", reason='needs pip install -e ".[peers]"')

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2}  # fmt: skip
TEXT = TINY | {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
VISION = TINY | {"image_size": 8, "patch_size": 4}


def by_the_swap(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    image = normalize(model.get_image_features(batch["pixel_values"]).pooler_output, dim=-1)
    text = normalize(model.get_text_features(batch["input_ids"]).pooler_output, dim=-1)
    if hasattr(model, "logit_bias"):
        return SigLipLoss()(image, text, model.logit_scale.exp(), model.logit_bias)
    return ClipLoss()(image, text, model.logit_scale.exp())


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_value_and_every_parameters_gradient(kind: str) -> None:
    torch.manual_seed(0)
    more: dict[str, Any] = {"projection_size": 16} if kind == "Siglip" else {}
    config = getattr(transformers, f"{kind}Config")(text_config=TEXT | more, vision_config=VISION)
    model = getattr(transformers, f"{kind}Model")(config).double()
    batch = {
        "input_ids": torch.randint(3, 20, (6, 8)),
        "pixel_values": torch.randn(6, 3, 8, 8, dtype=torch.float64),
    }
    expected = model(**batch, return_loss=True).loss
    found = by_the_swap(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
    names, parameters = zip(*model.named_parameters(), strict=True)
    theirs, ours = (
        torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        for loss in (expected, found)
    )
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12, msg=name)
