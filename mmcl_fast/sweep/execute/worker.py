"""A worker process, `python -P -m mmcl_fast.sweep.execute.worker DRIVER CHANNEL`.

It reads jobs from stdin, and writes messages to what CHANNEL is the number of, one JSON object per
line: which mmcl_fast it is (`ready`), its CPU time (`cpu`), and outcomes. It ends at the end of
stdin, and with the process DRIVER, its parent. `-P` keeps modules of the current folder out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import mmcl_fast
from mmcl_fast.operating_system.processes import die_with_parent, is_closed_pipe, of_parent
from mmcl_fast.sweep.execute.liveness import Liveness


class Messages:
    """Messages to the driver; both threads of a worker send some."""

    def __init__(self, channel: int) -> None:
        self._channel, self._lock = channel, threading.Lock()

    def send(self, message: object) -> None:
        """Send one message. Raises OSError where the driver has ended: its pipe is closed."""
        text = json.dumps(message).encode() + b"\n"
        with self._lock:
            while text:
                text = text[os.write(self._channel, text) :]


def identity() -> dict[str, str]:
    """Version and folder of this process's mmcl_fast: rows of two versions must not mix."""
    folder = Path(mmcl_fast.__file__).resolve().parent
    return {"version": mmcl_fast.__version__, "folder": str(folder)}


def serve(messages: Messages, liveness: Liveness) -> None:
    """Perform jobs until the end of stdin."""
    import torch

    from mmcl_fast.sweep.execute.worker_pool import Job, perform

    liveness.let_files_be_removed()
    torch.set_num_threads(1)
    messages.send({"ready": identity()})
    for line in sys.stdin:
        outcome = perform(Job.of(json.loads(line)))
        messages.send({type(outcome).__name__: asdict(outcome)})


def main() -> None:
    """Start the thread that reports, then serve."""
    driver, channel = map(int, sys.argv[1:])
    die_with_parent()
    messages = Messages(of_parent(channel))
    liveness = Liveness(driver, lambda seconds: messages.send({"cpu": seconds}))
    liveness.start()
    try:
        serve(messages, liveness)
    except OSError as error:
        if not is_closed_pipe(error):
            raise
        # The driver has ended; the next one computes the remaining shards.
        os._exit(1)


if __name__ == "__main__":
    main()
