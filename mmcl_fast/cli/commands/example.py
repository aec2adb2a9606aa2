"""`mmcl example`: train the runs of an example and draw its picture."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import torch

from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.examples.names import SOURCES, ExampleName
from mmcl_fast.experiments.examples.result import ExampleResult
from mmcl_fast.files import prepare_directory, write_atomically
from mmcl_fast.plotting import curves, example
from mmcl_fast.progress import progress

MAX_THREADS = 4096


def example_command(name: ExampleName, out: Path, *, full: bool, threads: int) -> int:
    """Run an example; write NAME.png and NAME.json to `out`.

    Args:
        name: Of the example.
        out: Directory of the results, created if absent.
        full: The finer grid with more seeds.
        threads: CPU threads.

    Returns: Exit status: 0, or 1 if a run diverged.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"threads: expected an integer in 1 .. {MAX_THREADS}, got {threads}")
    torch.set_num_threads(threads)
    prepare_directory(out)
    module = import_module(f"mmcl_fast.experiments.examples.{name.replace('-', '_')}")
    started, done = time.monotonic(), 0
    with progress(module.run_epochs(full=full), "run-epochs") as shown:

        def told(run_epochs: int) -> None:
            nonlocal done
            done += run_epochs
            shown.advance(name, done)

        result: ExampleResult = module.run(full=full, told=told)
    text = json.dumps(result.to_json(), allow_nan=False)
    write_atomically(out / f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))
    curves.save(example.example(result), out / f"{name}.png")
    seconds = time.monotonic() - started
    sys.stdout.write(f"{name}, after {SOURCES[name]}: {seconds:.1f} s\n")
    sys.stdout.write(f"wrote {name}.png, {name}.json in {out}\n")
    if result.diverged:
        sys.stderr.write(f"mmcl: {result.diverged} runs diverged\n")
    return 1 if result.diverged else 0


__all__ = ["example_command"]
