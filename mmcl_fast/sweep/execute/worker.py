"""A worker process, `python -m mmcl_fast.sweep.execute.worker`.

It reads jobs from stdin and writes outcomes to the original stdout, one JSON object per line. It
ends at the end of stdin, so it outlives its driver by one shard at most.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from typing import TextIO

import torch

from mmcl_fast.sweep.execute.worker_pool import Job, perform

READY = {"ready": True}


def serve() -> None:
    """Perform jobs until the end of stdin."""
    # An exit by exception removes the file that is being written.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Output of libraries goes to stderr, so that stdout carries messages alone.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    torch.set_num_threads(1)
    _send(out, READY)
    for line in sys.stdin:
        outcome = perform(Job(**json.loads(line)))
        _send(out, {type(outcome).__name__: asdict(outcome)})


def _send(out: TextIO, message: object) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    try:
        serve()
    except BrokenPipeError:
        # The driver has ended; the next one computes the remaining shards.
        os._exit(1)
