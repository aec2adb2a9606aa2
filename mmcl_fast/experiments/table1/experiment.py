"""Running the table: every arm for every seed, one thread each, resumable by seed and arm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch

from mmcl_fast.data.mnist.files import Digits
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.table1.accounting import percent_right
from mmcl_fast.experiments.table1.arms import make_arm, train_arm
from mmcl_fast.experiments.table1.colour_only import ColourOnly, colour_only
from mmcl_fast.experiments.table1.protocol import ArmName, Table1Config
from mmcl_fast.experiments.table1.readout import confusion_by_colour, embed_images
from mmcl_fast.experiments.table1.resume import JobResult, PartialResults
from mmcl_fast.experiments.table1.scores import Readout, accuracies, read_all
from mmcl_fast.experiments.table1.sets import make_sets

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
# Readout of each arm 0 against 1. Of the single-modal arms it is a weak one: the main probe, on
# standardised features, reads the digit (`docs/table1.md`).
ZERO_ONE_READOUT = MAIN_READOUT | dict.fromkeys(("single", "single_full"), "probe_few_epochs")


@dataclass(frozen=True)
class Table1:
    """All results.

    Attributes:
        config: Settings.
        seeds: Seeds of data, weights, minibatches and views.
        arms: Arms, in the table's order.
        device: Where the arms were trained.
        results: By arm and seed.
        colour_only: What a decision by colour alone gets on the same images.
    """

    config: Table1Config
    seeds: tuple[int, ...]
    arms: tuple[ArmName, ...]
    device: str
    results: dict[Job, JobResult]
    colour_only: ColourOnly


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
    exact = colour_only(digits, cfg, seeds)  # raises on settings that the files cannot meet
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
    results = {job: finished[job] for job in jobs}
    return Table1(cfg, tuple(seeds), tuple(arms), device, results, exact)


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
    readouts, digit_scores = read_all(features, sets, cfg, seed)
    with torch.no_grad():
        own = {kind: arm.scores(values) for kind, values in features.items()}
    said = {kind: scores.cpu() for kind, scores in own.items() if scores is not None}
    if said:
        readouts[MAIN_READOUT[name]] = Readout(said, said)
    labels = {kind: data.labels.cpu() for kind, data in sets.items()}
    tied = cfg.colours.tied == "first_two"
    accuracy = {k: accuracies(v, labels, tied=tied) for k, v in readouts.items()}
    shown = {kind: data.digits.cpu() for kind, data in sets.items()}
    accuracy["digit_probe"] = percent_right(
        {k: v.argmax(1) for k, v in digit_scores.items()}, shown
    )
    main = readouts[MAIN_READOUT[name]].ten["rev"].argmax(1)
    return JobResult(accuracy, confusion_by_colour(main, sets["rev"].colours.cpu()))


__all__ = ["MAIN_READOUT", "ZERO_ONE_READOUT", "Job", "Table1", "run_job", "run_table1"]
