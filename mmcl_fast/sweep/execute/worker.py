"""A worker process, `python -m mmcl_fast.sweep.execute.worker`.

Jobs come in on stdin, a line of JSON each; outcomes go out on what was stdout. It ends when stdin
does, so it outlives its driver by the shard in hand at most.
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
    """Do jobs until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    # An exit by exception removes the file that is being written.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # What libraries print must not get between our lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    torch.set_num_threads(1)
    _say(out, READY)
    for line in sys.stdin:
        outcome = perform(Job(**json.loads(line)))
        _say(out, {type(outcome).__name__: asdict(outcome)})


def _say(out: TextIO, told: object) -> None:
    out.write(json.dumps(told) + "\n")
    out.flush()


if __name__ == "__main__":
    try:
        serve()
    except BrokenPipeError:
        # The driver has gone; its successor does what is left.
        os._exit(1)
