"""The losses with sentence-transformers' call, beside its own: embeddings and training steps."""

from __future__ import annotations

import copy
import itertools
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.budget import value_and_grads

NEEDED = ("sentence_transformers", "accelerate", "datasets")
for package in NEEDED:
    pytest.importorskip(package, reason='needs pip install -e ".[peers]"')
sentence_transformers = import_module("sentence_transformers")
theirs = import_module("sentence_transformers.sentence_transformer.losses")
ours = import_module("mmcl_fast.losses.compat.sentence_transformers")
similarities = import_module("sentence_transformers.util")

D = 6
DIRECTIONS = [
    ("query_to_doc",),
    ("query_to_doc", "doc_to_query"),
    ("query_to_doc", "query_to_query"),
    ("query_to_doc", "query_to_query", "doc_to_query"),
    ("query_to_doc", "doc_to_query", "doc_to_doc"),
    ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
]


def columns(negatives: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(29)
    return {
        f"column_{k}": torch.randn(11, D, dtype=torch.float64, generator=g)
        for k in range(2 + negatives)
    }


@pytest.mark.parametrize("negatives", [0, 1, 3])
@pytest.mark.parametrize("similarity", ["cos_sim", "dot_score"])
@pytest.mark.parametrize("directions", DIRECTIONS, ids="+".join)
def test_embeddings(negatives: int, similarity: str, directions: tuple[str, ...]) -> None:
    modes = ["joint"]
    if set(directions) <= {"query_to_doc", "doc_to_query"}:
        modes.append("per_direction")
    for mode in modes:
        options: dict[str, Any] = {"directions": directions, "partition_mode": mode}
        options["similarity_fct"] = getattr(similarities, similarity)
        made = (
            m.MultipleNegativesRankingLoss(nn.Identity(), 7.0, **options) for m in (ours, theirs)
        )
        found, expected = (
            value_and_grads(
                lambda loss=loss, **t: loss.compute_loss_from_embeddings(list(t.values()), None),
                columns(negatives),
                torch.tensor(0.7),
            )
            for loss in made
        )
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"similarity_fct": nn.CosineSimilarity()}, "similarity_fct: expected cos_sim | dot_score, "),
    (
        {"directions": ("query_to_doc", "doc_to_doc")},
        'directions: expected "doc_to_query" beside "doc_to_doc", got ',
    ),
    (
        {"hardness_mode": "hard_negatives", "hardness_strength": 5.0},
        "hardness_strength: expected 0.0, got 5.0: ",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[next(iter(o)) for o, _ in REFUSED])
@pytest.mark.parametrize("kind", ["", "Cached"])
def test_what_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        getattr(ours, f"{kind}MultipleNegativesRankingLoss")(
            nn.Sequential(nn.Identity()), **options
        )
    assert str(caught.value).startswith(message)


def test_wrong_embeddings_are_named() -> None:
    loss = ours.MultipleNegativesRankingLoss(nn.Identity())
    a, b = torch.randn(2, 4, 3)
    for embeddings, message in (
        ([a], "embeddings: expected at least 2 columns, got 1"),
        ([a, b[:3]], r"embeddings\[1\]: expected the 4 rows of embeddings\[0\], got 3"),
        ([a, b, b.double()], r"embeddings\[2\]: expected the dtype of embeddings\[0\], float32"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            loss.compute_loss_from_embeddings(embeddings, None)
    assert "scale=20.0" in repr(loss)


WORDS = ["red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "sings", "far"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A tiny BERT of random weights with a tokenizer of ten words; nothing is downloaded."""
    transformers = import_module("transformers")
    modules = import_module("sentence_transformers.sentence_transformer.modules")
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {
        w: k for k, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    }
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    encoder = modules.Transformer(str(folder))
    pooling = modules.Pooling(encoder.get_embedding_dimension())
    return sentence_transformers.SentenceTransformer(modules=[encoder, pooling], device="cpu")


def history(
    model: nn.Module, folder: Path, build: Any, names: list[str]
) -> tuple[list[float], Any]:
    """The losses of four steps of their Trainer on a copy of the model, and its last weights."""
    datasets = import_module("datasets")
    texts = [f"{a} {b} {c}" for a, b, c in itertools.permutations(WORDS, 3)]
    generator = torch.Generator().manual_seed(3)
    rows = {
        name: [texts[k] for k in torch.randperm(len(texts), generator=generator)[:32].tolist()]
        for name in names
    }
    trained = copy.deepcopy(model)
    # Plain steps, not clipped: Adam would hide a factor of the gradient.
    arguments = sentence_transformers.SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=4, per_device_train_batch_size=8, logging_steps=1,
        optim="sgd", learning_rate=0.1, max_grad_norm=0.0, seed=5, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = sentence_transformers.SentenceTransformerTrainer(
        model=trained,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(rows),
        loss=build(trained),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4
    return losses, trained.state_dict()


TRIPLET = ["anchor", "positive", "negative_1", "negative_2"]
BUILDS: dict[str, tuple[list[str], Any]] = {
    "pairs": (TRIPLET[:2], lambda m: lambda x: m.MultipleNegativesRankingLoss(x)),
    "negatives": (TRIPLET, lambda m: lambda x: m.MultipleNegativesRankingLoss(x, scale=10.0)),
    "symmetric": (
        TRIPLET[:2],
        lambda m: (
            lambda x: m.MultipleNegativesRankingLoss(
                x, directions=DIRECTIONS[1], partition_mode="per_direction"
            )
        ),
    ),
    "matryoshka": (
        TRIPLET[:3],
        lambda m: (
            lambda x: theirs.MatryoshkaLoss(
                x, m.MultipleNegativesRankingLoss(x), [16, 8, 4], [1, 0.5, 0.25]
            )
        ),
    ),
    "cached": (
        TRIPLET,
        lambda m: lambda x: m.CachedMultipleNegativesRankingLoss(x, mini_batch_size=3),
    ),
    "cached matryoshka": (
        TRIPLET[:2],
        lambda m: (
            lambda x: theirs.MatryoshkaLoss(
                x, m.CachedMultipleNegativesRankingLoss(x, mini_batch_size=3), [16, 4]
            )
        ),
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_their_trainer_step_by_step(name: str, model: nn.Module, tmp_path: Path) -> None:
    names, build = BUILDS[name]
    (found, weights), (expected, others) = (
        history(model, tmp_path, build(module), names) for module in (ours, theirs)
    )
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert found[0] != found[-1]
    for key, value in others.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-4)
