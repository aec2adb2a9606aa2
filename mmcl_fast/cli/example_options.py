"""Options of `mmcl example`: fields of a frozen dataclass."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from mmcl_fast.cli.parser import POSITIONAL
from mmcl_fast.errors import ConfigError
from mmcl_fast.experiments.examples.names import ABOUT, SOURCES, ExampleName


@dataclass(frozen=True, kw_only=True)
class Example:
    """Run an example of a model variant, after a published figure: NAME.png, NAME.json."""

    name: ExampleName | None = field(default=None, metadata=POSITIONAL)
    """The example; --list names them all."""
    list: bool = False
    """Print the names of the examples, what each shows, and after whom; run nothing."""
    full: bool = False
    """The finer grid with more seeds: minutes to hours, against some minutes at most."""
    threads: int = 1
    """CPU threads; runs this short gain little."""
    out: Path = Path()
    """Directory of the results."""

    def run(self) -> int:
        """Run the command and return its exit status."""
        if self.list:
            if self.name is not None or self.full:
                raise ConfigError("list: expected no example and no --full beside it")
            width = max(map(len, ABOUT))
            for name, about in ABOUT.items():
                sys.stdout.write(f"{name:<{width}}  {about}; after {SOURCES[name]}\n")
            return 0
        if self.name is None:
            raise ConfigError(
                f"NAME: expected one of {', '.join(ABOUT)}, got none; mmcl example --list"
            )
        from mmcl_fast.cli.commands.example import example_command

        return example_command(self.name, self.out, full=self.full, threads=self.threads)


__all__ = ["Example"]
