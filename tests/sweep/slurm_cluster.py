"""A Slurm of one node on the loopback interface, with configuration and state in one folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
PACKAGES = "munge slurmctld slurmd slurm-client"  # of Debian
CORES = 2
STARTED_S = 30.0
KILL_WAIT_S = 5
"""Between a job's SIGTERM and its SIGKILL."""

# `config_overrides`: as many cores as this says, whatever the machine has. `cred_expire`: a job
# that was requeued waits for its credential to expire, by default two minutes.
CONFIGURATION = """
ClusterName=mmcl
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
NodeName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cores} RealMemory=64000
PartitionName=low Nodes={host} Default=YES PriorityTier=1 MaxTime=60 State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP
"""


class Cluster:
    """The daemons, and the commands that reach them.

    Args:
        folder: An empty directory for configuration, state and logs, of a short path: it holds a
            socket. Removed by the caller.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0],
                user=pwd.getpwuid(os.getuid()).pw_name,
                controller_port=free_port(),
                node_port=free_port(),
                folder=folder,
                kill_wait=KILL_WAIT_S,
                cores=CORES,
            )
        )
        (folder / "cgroup.conf").touch()
        # The shell of a user who has logged in anew: nothing of the tests' environment.
        self.environment = {"PATH": os.defpath, "SLURM_CONF": str(configuration)}

    def start(self) -> None:
        """Start the daemons, and wait until the node takes jobs."""
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._daemon(
            "munged",
            "--foreground",
            "--force",  # a folder of a test may be in one that others can write to
            f"--socket={self.folder}/munge.socket",
            f"--key-file={key}",
            f"--log-file={self.folder}/munged.log",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
        )
        wait_until((self.folder / "munge.socket").exists, "munged listens", STARTED_S)
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D")
        wait_until(lambda: self.run("sinfo", "-h", "-o", "%T") == "idle", "a node", STARTED_S)

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("wb") as said:
            self._daemons.append(
                subprocess.Popen(
                    [executable(program), *arguments],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                )
            )

    def close(self) -> None:
        """Cancel all jobs and end the daemons, the last one first."""
        if len(self._daemons) == len(("munged", "slurmctld", "slurmd")):
            self.run("scancel", "--user", pwd.getpwuid(os.getuid()).pw_name, check=False)
            wait_until(lambda: not self.jobs(), "cancelled jobs end", 4 * KILL_WAIT_S)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(STARTED_S)

    def run(self, program: str, *arguments: str, check: bool = True) -> str:
        """What a command of Slurm says."""
        done = subprocess.run(
            [executable(program), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=STARTED_S,
            check=False,
        )
        assert not check or done.returncode == 0, (program, done.stdout, done.stderr, self.logs())
        return done.stdout.strip()

    def submit(self, script: Path, *options: str) -> str:
        """Submit a script; the job's number."""
        return self.run("sbatch", "--parsable", *options, str(script))

    def jobs(self) -> Mapping[str, str]:
        """State of each job and of each task of an array (`12_3`) that has not ended."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        found = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        return "\n".join(
            f"{path.name}: {line}"
            for path in found
            for line in path.read_text(errors="replace").splitlines()[-20:]
        )


def missing() -> list[str]:
    """Programs of Slurm and munge that are not installed here."""
    return [program for program in PROGRAMS if not _found(program)]


def executable(program: str) -> str:
    """Path of a program that is installed."""
    path = _found(program)
    assert path is not None, program
    return path


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def wait_until(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Wait for a condition, or fail with what was awaited."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)
