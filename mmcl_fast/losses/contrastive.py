"""The public InfoNCE loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmcl_fast.losses.contrast import Contrast, padding_after
from mmcl_fast.losses.dispatch import run, scalar
from mmcl_fast.losses.evaluation import Reduction
from mmcl_fast.losses.key_bias import with_key_bias
from mmcl_fast.losses.mixed_precision import in_one_dtype
from mmcl_fast.losses.pair_validation import (
    Pairs,
    are_several,
    check_key_bias,
    check_weight,
    checked_pairs,
)
from mmcl_fast.losses.reductions import run_weighted
from mmcl_fast.losses.validation import (
    check_hard_counts,
    check_labels,
    check_more_negatives,
    check_not_traced,
    check_options,
    check_positives,
    check_smoothing,
    check_temperature,
    check_tensors,
)


def info_nce(  # noqa: PLR0913 - users expect these arguments here
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    symmetric: bool = False,
    labels: Tensor | None = None,
    key_labels: Tensor | None = None,
    negatives: Literal["all", "other_label"] = "all",
    exclude_self: bool = False,
    positive: Tensor | None = None,
    positive_mask: Pairs | None = None,
    targets: Pairs | None = None,
    positive_key: Tensor | None = None,
    exclude_mask: Pairs | None = None,
    key_bias: Tensor | None = None,
    extra_negatives: Tensor | None = None,
    hard_negatives: Tensor | None = None,
    hard_negative_counts: Tensor | None = None,
    stop_gradient: Literal["key"] | None = None,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: str = "auto",
) -> Tensor:
    """InfoNCE of N queries against M keys, without storing the N x M scores.

    loss_i = -log( e^{s_i+} / (e^{s_i+} + sum_{j in N(i)} e^{s_ij}) )
    s_ij = <q_i, k_j> / temperature

    With several positives P(i), or shares p_ij of the keys in the target, it is the cross-entropy

    loss_i = -sum_j p_ij log( e^{s_ij} / sum_{k in A(i)} e^{s_ik} ),   p_ij = 1 / |P(i)| in P(i)

    of SupCon (L_out) and of `torch.nn.functional.cross_entropy` with probabilities: A(i) are all
    keys with a share, and the negatives, so positives compete with each other. A query without any
    positive has loss 0, and counts in the mean, as in `sup_con`.

    Equations (6) and (9) of the paper, whose similarity is <H, K> / m:

        info_nce(h, h, positive_key=h_aug, labels=y, negatives="other_label",
                 stop_gradient="key", temperature=m * tau)
        2 * info_nce(h, g, symmetric=True, labels=y, negatives="other_label",
                     stop_gradient="key", temperature=m * tau)

    Args:
        query: [N, D], float16 | bfloat16 | float32 | float64, any strides. Nothing is normalised.
        key: [M, D], same dtype (under autocast any: features of several dtypes are taken in the
            widest) and device. Row i is the positive of query i (so M >= N), unless
            its positives are given. The same tensor in both places is recognised, and
            costs less where scores are symmetric.
        temperature: Dimensionless, > 0. A floating tensor of one element, 0-d or [1], on the
            device of `query` receives a gradient. A tensor on a CPU is checked for its value; one
            on another device is not read, as that would wait for the device: if it is not positive
            the loss is without meaning.
        symmetric: Half the sum of both directions, query to key and key to query. Needs M = N and
            no `positive`, `targets`, `positive_key`, `exclude_self`, `key_bias`, `extra_negatives`,
            `hard_negatives`. The positives and exclusions of key j are the queries of column j of
            the masks.
        labels: [N], integer, bool or floating: the label of each query. Used by "other_label" only.
        key_labels: [M], same dtype: the label of each key. `labels` where not given, if M = N.
        negatives: "all": every row of `key` but the positive; with `positive_key`, every row of
            `key`. "other_label": those of them whose label differs from the query's; not with
            several positives.
        exclude_self: Row i of `key` is no negative of query i, and among several positives none of
            these. Needs positives that are given.
        positive: [N], int64, in 0 .. M - 1: the row of `key` that is the positive of each query.
            [N, P]: the rows that are its positives, -1 for none; a row listed twice counts twice.
            Looked at on a CPU only, as that would wait for a device: there, the Triton kernels give
            NaN where it is out of range.
        positive_mask: bool [N, M]: which keys are positives of each query. Or a function of blocks,
            from row numbers of queries [r] and of keys [c], int64 on the device of `query`, to bool
            [r, c]: only blocks of its values are stored. It is called without a gradient, more than
            once for a pair, and must answer the same.
        targets: floating [N, M], finite, >= 0: the shares p_ij of the keys in each query's target,
            without gradient. They need not sum to 1: a row's loss is p_ij log-probabilities,
            summed. Or a function of blocks as above, to floating [r, c].
        positive_key: [N, D], same dtype and device; row i is the positive of query i.
        exclude_mask: bool [N, M], or a function of blocks as above: pairs that take no part, as
            suspected false negatives. A positive takes part whatever the mask says of it, and so do
            `extra_negatives` and `hard_negatives`.
        key_bias: [M], floating, finite: added to the scores of each key, s_ij = <q_i, k_j> / T +
            b_j; for items drawn with probability p_j as negatives -log p_j (the logQ correction).
            `positive_key`, `extra_negatives` and `hard_negatives` have none. A tensor that requires
            a gradient receives one. Half features are widened to float32 with it.
        extra_negatives: [K, D], same dtype and device: negatives of every query, whatever labels.
        hard_negatives: [N, K, D], same dtype and device: K further negatives of each query.
        hard_negative_counts: [N], int64, in 0 .. K, same device: query i has its first
            `hard_negative_counts[i]` hard negatives. The rest is padding, NaN even, without
            influence or gradient. Checked on a CPU only, as that would wait for a device, and not
            while a compiler traces: elsewhere a count below 0 is 0, and one above K is K.
        stop_gradient: "key": no gradient reaches whichever tensor plays the key in a direction, nor
            `positive_key`, `key_bias`, `extra_negatives`, `hard_negatives`. None: all gradients.
        label_smoothing: In 0 .. 1: this share of the target is spread evenly over the positive and
            the negatives, as in `torch.nn.functional.cross_entropy`. Not with several positives,
            whose `targets` can say the same, nor with `exclude_mask`.
        weight: [N], floating, finite, >= 0: what each query's loss counts. A tensor that requires a
            gradient receives one. Looked at on a CPU only: elsewhere an infinite one, or a sum of 0
            or infinity that divides, gives NaN.
        reduction: "mean" over the N queries (N >= 1: the mean of nothing is refused), or with
            `weight` the weighted mean, sum w_i loss_i / sum w_i, as torch's `cross_entropy` takes
            it; "sum"; or "none" for [N] (if `symmetric`, entry i is the mean of the two directions'
            row i).
        backend: "auto" or a name in `mmcl_fast.losses.backends.BACKENDS`; a name never falls back.

    Returns: A scalar, or [N]; float32, or float64 for float64 input. A query without negatives has
        loss 0 and no gradient.

    Raises:
        ValueError: Sizes, values or combinations; the message names argument, expected and got.
        RuntimeError: `torch.jit.trace` is active; or a function of blocks where only tensors are
            taken.
        TypeError: Kinds and dtypes.
        BackendUnavailableError: The named backend cannot run this; the message says why.

    Numerics: Scores and sums in float32 (float64 for float64 input) under autocast too; safe at any
        temperature. Each gradient is rounded once; with several positives and `symmetric` that of
        each direction is. A loss of several positives near 0 has the absolute error of its scores.
        Same bits on every run. It can be differentiated twice, the inner time in
        reverse mode (`mmcl_fast/losses/second_derivatives.py`), once in forward mode, and once
        compiled. Tests: tests/losses/test_info_nce.py.

    Cost: `mmcl_fast/losses/torch_backend/contrastive.py` has the table; O((N + M) * D) memory
        beside the hard negatives, of which counts make a copy. Several positives cost what
        `mmcl_fast/losses/target_means.py` says, in each direction. The Triton kernels refuse
        `exclude_mask`, and "auto" takes blocks of torch. Functions of blocks are refused where a
        compiler or a transform runs, which take tensors alone.

    See: mmcl_fast.reference.info_nce (meaning).
    """
    check_not_traced()
    if torch._C._is_any_autocast_enabled():
        query, key, positive_key, extra_negatives, hard_negatives = in_one_dtype(
            query, key, positive_key, extra_negatives, hard_negatives
        )
    check_options(
        symmetric=symmetric,
        exclude_self=exclude_self,
        negatives=negatives,
        stop_gradient=stop_gradient,
        reduction=reduction,
    )
    check_tensors(query, key, reduction=reduction)
    several = positive_mask is not None or targets is not None or are_several(positive)
    pairwise = None
    if several or exclude_mask is not None:
        pairwise = checked_pairs(
            query,
            key,
            positive=positive if several else None,
            positive_mask=positive_mask,
            targets=targets,
            exclude_mask=exclude_mask,
            positive_key=positive_key,
            symmetric=symmetric,
            exclude_self=exclude_self,
            negatives=negatives,
            label_smoothing=label_smoothing,
        )
    if not several:
        check_positives(
            query,
            key,
            positive=positive,
            positive_key=positive_key,
            symmetric=symmetric,
            exclude_self=exclude_self,
        )
    check_more_negatives(query, extra_negatives, hard_negatives, symmetric=symmetric)
    check_hard_counts(hard_negatives, hard_negative_counts)
    check_temperature(temperature, query.device)
    check_smoothing(label_smoothing)
    if weight is not None:
        check_weight(weight, query, reduction=reduction)
    pair = check_labels(query, key, labels, key_labels, negatives=negatives)
    if key_bias is not None:
        check_key_bias(key_bias, key, symmetric=symmetric)
        scale = scalar(temperature, query)
        query, key, (positive_key, extra_negatives, hard_negatives) = with_key_bias(
            query, key, key_bias, scale, (positive_key, extra_negatives, hard_negatives)
        )
        temperature = 1.0
    stopped = stop_gradient == "key"
    same_rows = query is key and extra_negatives is None and hard_negatives is None
    if extra_negatives is not None:
        key = torch.cat([key, extra_negatives])
    if stopped and not symmetric:
        key = key.detach()
        positive_key, hard_negatives = _detached(positive_key), _detached(hard_negatives)
    if hard_negatives is not None and hard_negative_counts is not None:
        # Not a factor of 0: padding may be NaN. Autograd gives what is overwritten no gradient.
        padding = padding_after(hard_negative_counts, hard_negatives.shape[1])
        hard_negatives = hard_negatives.masked_fill(padding[:, :, None], 0.0)
    paired = positive_key is not None or several
    without_key = same_rows and not symmetric and (stopped or (exclude_self and paired))
    # Exclusions need not be symmetric.
    without_key = without_key and exclude_mask is None
    # Queries and keys of the same rows may differ in their labels.
    without_key = without_key and (pair is None or (stopped and pair[0] is pair[1]))
    contrast = Contrast(
        query=query,
        key=None if without_key else key,
        temperature=scalar(temperature, query),
        positive=None if several else positive,
        positive_key=positive_key,
        hard=hard_negatives,
        hard_counts=hard_negative_counts,
        labels=pair,
        form="decoupled" if several else "softmax",
        symmetric=symmetric,
        stopped=stopped,
        exclude_self=exclude_self,
        extra=0 if extra_negatives is None else extra_negatives.shape[0],
        supervised=several,
        smoothing=float(label_smoothing),
        pairwise=pairwise,
    )
    if several or weight is not None:
        return run_weighted(contrast, weight, reduction, backend)
    return run(contrast, reduction, backend)


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()


__all__ = ["info_nce"]
