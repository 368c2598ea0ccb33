"""How fast, beside whom: contenders take turns, so that a noisy moment hits them all.

Every contender is a process that is stopped (SIGSTOP) while it is not its turn, so that the
spinning threads of one never slow down another.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from levit_deploy.errors import DeployError
from levit_deploy.verify.peer import Peer
from levit_deploy.verify.process import worker_command

TURN_S = 0.05


@dataclass(frozen=True)
class Contender:
    """`file`: what it runs: a shared library, an ONNX file, or a TorchScript file."""

    name: str
    peer: Peer
    file: Path
    threads: int
    image_size: int
    channels: int = 3

    @property
    def command(self) -> tuple[str | Path, ...]:
        """Starts a process that speaks as latency_worker does."""
        sizes = map(str, (self.threads, self.channels, self.image_size))
        module = "levit_deploy.verify.latency_worker"
        return worker_command(module, self.peer.value, self.file, *sizes)


@dataclass(frozen=True)
class Latency:
    """Microseconds for one image; CPU time is that of the whole process, all threads."""

    name: str
    version: str
    images: int
    min_wall_us: float
    median_wall_us: float
    min_cpu_us: float
    median_cpu_us: float


class Timed(Protocol):
    """Whatever takes turns: a Contender, or a process of its own kind."""

    @property
    def name(self) -> str: ...
    @property
    def command(self) -> Sequence[str | Path]: ...


def measure(
    contenders: Sequence[Timed],
    rounds: int,
    on_round: Callable[[int], None] = lambda done: None,
    *,
    turn_s: float = TURN_S,
) -> list[Latency]:
    """Time all contenders in `rounds` interleaved rounds; the order of the answer is theirs.

    A turn is about `turn_s` seconds long.

    Raises DeployError if one of them cannot be loaded or dies.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(contender)) for contender in contenders]
        for done in range(rounds):
            for worker in workers:
                worker.take_turn(turn_s)
            on_round(done + 1)
        return [worker.latency() for worker in workers]


@dataclass
class _Worker:
    """The process of one contender, stopped but for its turns."""

    contender: Timed
    samples: list[tuple[int, int]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, self._version = self._answer().split()
        self._batch = 1
        self._process.send_signal(signal.SIGSTOP)
        return self

    def take_turn(self, turn_s: float) -> None:
        """Classify for about `turn_s` seconds."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{self._batch}\n")
        self._process.stdin.flush()
        self.samples += [(wall, cpu) for wall, cpu in json.loads(self._answer())]
        self._process.send_signal(signal.SIGSTOP)
        fastest_s = min(wall for wall, _ in self.samples) * 1e-9
        self._batch = max(1, round(turn_s / fastest_s))

    def latency(self) -> Latency:
        wall, cpu = zip(*self.samples, strict=True)
        return Latency(
            name=self.contender.name,
            version=self._version,
            images=len(wall),
            min_wall_us=min(wall) / 1e3,
            median_wall_us=statistics.median(wall) / 1e3,
            min_cpu_us=min(cpu) / 1e3,
            median_cpu_us=statistics.median(cpu) / 1e3,
        )

    def _answer(self) -> str:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read().strip().splitlines()
            raise DeployError(
                f"`{self.contender.name}` could not be timed: {said[-1] if said else 'it died'}",
                hint="leave it out with --against",
            )
        return line

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
