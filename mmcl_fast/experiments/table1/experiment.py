"""Running the table: every arm for every seed, one thread each, resumable by seed and arm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmcl_fast.data.mnist.colored_mnist import ColouredDigits, Kind, coloured_digits, subset
from mmcl_fast.data.mnist.files import Digits
from mmcl_fast.errors import ConfigError, DataError
from mmcl_fast.experiments.table1.arms import make_arm, train_arm
from mmcl_fast.experiments.table1.protocol import ArmName, Table1Config
from mmcl_fast.experiments.table1.readout import (
    confusion_by_colour,
    embed_images,
    fit_probe,
    percent_right,
    percent_right_on_tied,
)
from mmcl_fast.experiments.table1.resume import JobResult, PartialResults

Job = tuple[ArmName, int]
OnStep = Callable[[ArmName, int], None]
# Main readout of each arm: the scores of the arm itself, where it has any.
MAIN_READOUT = {
    "multi": "zero_shot",
    "single": "probe",
    "single_full": "probe",
    "two_head": "digit_head",
    "supervised": "head",
}


@dataclass(frozen=True)
class Table1:
    """All results.

    Attributes:
        config: Settings.
        seeds: Seeds of data, weights, minibatches and views.
        arms: Arms, in the table's order.
        device: Where the arms were trained.
        results: By arm and seed.
    """

    config: Table1Config
    seeds: tuple[int, ...]
    arms: tuple[ArmName, ...]
    device: str
    results: dict[Job, JobResult]


def make_sets(digits: Digits, cfg: Table1Config, seed: int) -> dict[str, ColouredDigits]:
    """The training images and the three test sets of a seed, on the CPU, by their names in SETS."""
    split = len(digits.train_images) - len(digits.train_images) // 6
    available = split if cfg.test_from == "split" else len(digits.train_images)
    if cfg.images > available:
        raise DataError(
            f"images: expected at most the {available} training images, got {cfg.images}"
        )
    step = 1 if cfg.pixels == "all" else 2
    tint = partial(coloured_digits, rule=cfg.colours, seed=seed)
    train = tint(
        digits.train_images[:, ::step, ::step],
        digits.train_labels,
        "train",
        part="train",
        index=subset(available, cfg.images, seed=seed),
    )
    official = cfg.test_from == "official"
    images = digits.test_images if official else digits.train_images[split:]
    shown = digits.test_labels if official else digits.train_labels[split:]
    kinds: tuple[Kind, ...] = ("id", "rand", "rev")
    small = images[:, ::step, ::step]
    return {"train": train} | {kind: tint(small, shown, kind, part="test") for kind in kinds}


def run_table1(
    digits: Digits,
    cfg: Table1Config,
    seeds: Sequence[int],
    arms: Sequence[ArmName],
    *,
    device: str = "cpu",
    store: PartialResults | None = None,
    on_step: OnStep | None = None,
) -> Table1:
    """Train and read out every arm for every seed.

    On a CPU each job computes on one thread and as many run side by side as torch may use threads,
    so results do not depend on the number of threads.

    Args:
        digits: MNIST.
        cfg: Settings.
        seeds: Seeds.
        arms: Which arms.
        device: "cpu" or "cuda"; on CUDA one job runs at a time.
        store: Finished jobs, which are not run again; takes each job that finishes.
        on_step: Told arm and seed after each optimiser step, from several threads.

    Returns: All results.
    """
    jobs: list[Job] = [(arm, seed) for seed in seeds for arm in arms]
    finished = dict(store.jobs) if store else {}
    stop = threading.Event()

    def work(job: Job) -> None:
        def step() -> None:
            if stop.is_set():
                raise _StoppedError
            if on_step:
                on_step(*job)

        result = run_job(digits, cfg, job, torch.device(device), step)
        finished[job] = result
        if store:
            store.add(job, result)

    threads = torch.get_num_threads()
    workers = 1 if device == "cuda" else threads
    pool = ThreadPoolExecutor(workers, "table1", torch.set_num_threads, (1,))
    try:
        futures = [pool.submit(work, job) for job in jobs if job not in finished]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        # The count in force is per thread, but a new thread starts from the last one set anywhere.
        torch.set_num_threads(threads)
    return Table1(cfg, tuple(seeds), tuple(arms), device, {job: finished[job] for job in jobs})


class _StoppedError(Exception):
    """Another job failed, or the user interrupted."""


def run_job(
    digits: Digits,
    cfg: Table1Config,
    job: Job,
    device: torch.device,
    on_step: Callable[[], None],
) -> JobResult:
    """Train one arm for one seed and read it out."""
    name, seed = job
    sets = {kind: data.to(device) for kind, data in make_sets(digits, cfg, seed).items()}
    arm = make_arm(name, cfg, sets["train"], seed)
    train_arm(arm, on_step)
    features = {kind: embed_images(arm.encoder, data) for kind, data in sets.items()}
    if not torch.isfinite(features["train"]).all():
        raise ConfigError(
            f"learning_rate: expected finite features after training, got {name}, seed {seed}, "
            f"diverged at learning_rate {cfg.learning_rate:g}"
        )
    predicted, digit_classes = _read(features, sets, cfg)
    with torch.no_grad():
        for kind, values in features.items():
            scores = arm.scores(values)
            if scores is not None:
                predicted.setdefault(MAIN_READOUT[name], {})[kind] = scores.argmax(1).cpu()
    labels = {kind: data.labels.cpu() for kind, data in sets.items()}
    accuracy = {k: percent_right(v, labels) for k, v in predicted.items()}
    if cfg.colours.tied == "first_two":
        for readout, classes in predicted.items():
            accuracy[readout] |= percent_right_on_tied(classes, labels)
    shown = {kind: data.digits.cpu() for kind, data in sets.items()}
    accuracy["digit_probe"] = percent_right(digit_classes, shown)
    colours = sets["rev"].colours.cpu()
    confusion = confusion_by_colour(predicted[MAIN_READOUT[name]]["rev"], colours)
    return JobResult(accuracy, confusion)


def _read(
    features: dict[str, Tensor], sets: dict[str, ColouredDigits], cfg: Table1Config
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Classes on every set by each probe for labels, and by a probe for the true digit.

    "train" stands for the images that a probe was fitted to: the small probe's are the first few.
    """
    train, data, few = features["train"], sets["train"], cfg.few_labels
    fits = {
        "probe": (train, data.labels, cfg.probe_l2),
        "probe_no_l2": (train, data.labels, 0.0),
        "probe_few_labels": (train[:few], data.labels[:few], cfg.few_l2),
        "digit_probe": (train, data.digits, cfg.probe_l2),
    }
    predicted: dict[str, dict[str, Tensor]] = {}
    for name, (inputs, targets, l2) in fits.items():
        probe = fit_probe(inputs, targets, l2=l2, iterations=cfg.probe_iterations)
        predicted[name] = {k: probe.predict(v) for k, v in (features | {"train": inputs}).items()}
    return predicted, predicted.pop("digit_probe")


__all__ = ["MAIN_READOUT", "Job", "Table1", "make_sets", "run_job", "run_table1"]
