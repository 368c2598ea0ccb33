"""Search the tiles of many kernels: compiled here, timed on one machine or on several equal ones.

    specs -> [compile: all cores] -> batches -> [time: each board that is free] -> rows

Where kernels are timed here, nothing compiles meanwhile; where they are not timed at all, a row is
what their assembly says.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levit_deploy import __version__
from levit_deploy.compiler.tiles.registry import Spec
from levit_deploy.compiler.tiles.table import TileRow
from levit_deploy.compiler.tuning.batch import Batch, build_batch
from levit_deploy.compiler.tuning.search import (
    COUNT,
    Candidate,
    cheapest,
    compile_candidates,
    fastest,
)
from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import Machine, MachineLostError, RunError
from levit_deploy.machines.open import NothingRunsError, machine_for
from levit_deploy.records import printable
from levit_deploy.targets.table import HOST
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.tune.timer import AGAIN, KernelTimer

_SEPARATOR = "; "  # of who measured and how


@dataclass(frozen=True)
class Search:
    """`machines`: equal ones that run the target's code; none where it is modelled. `here`: whether
    they are this machine, which cannot compile while it times. `count`: how many tiles of a kernel
    are tried, the default too. `note`: gets what is worth a line.
    """

    toolchain: Toolchain
    machines: tuple[Machine, ...]
    here: bool = False
    count: int = COUNT
    note: Callable[[str], None] = lambda text: None

    @property
    def target(self) -> Target:
        return self.toolchain.target

    @property
    def row_target(self) -> str:
        """What rows are filed under: `host` means nothing on another machine."""
        return (self.target.base or HOST) if self.target.name == HOST else self.target.name

    @property
    def measured_by(self) -> str:
        """The CPU, or `modelled`, and this tool's version."""
        modelled = "modelled: instructions of the hot loops"
        what = self.machines[0].cpu().model if self.machines else modelled
        return f"{printable(what)}, levit-deploy {__version__}"

    def has_made(self, row: TileRow) -> bool:
        """Whether the row is one of this search, on whichever of equal machines."""
        return row.measured_on.split(_SEPARATOR)[0] == self.measured_by

    def rows(self, specs: Sequence[Spec]) -> Generator[TileRow, None, None]:
        """The row of the best tile of each of `specs`, as they are found; it is the default where
        none is better by MARGIN.

        A machine that is gone, too busy to time kernels or does not run them is left out. Raises
        DeployError if kernels cannot be built, or if no machine is left.
        """
        return _Timing(self).rows(specs) if self.machines else self._modelled(specs)

    def _modelled(self, specs: Sequence[Spec]) -> Generator[TileRow, None, None]:
        with ThreadPoolExecutor(_cores()) as pool:
            for spec in specs:
                found = compile_candidates(spec, self.target, self.count, pool)
                at, ratio = cheapest(found)
                tile = found[at].tile
                yield TileRow(self.row_target, spec, tile, self.measured_by, None, ratio)

    def build(self, spec: Spec, pool: Executor, folder: Path) -> Batch:
        """All candidates of `spec` in `folder`, which is made."""
        folder.mkdir()
        found = compile_candidates(spec, self.target, self.count, pool)
        objects = list(pool.map(Candidate.emit, found))
        tiles, kernels = [one.tile for one in found], [one.kernel for one in found]
        return build_batch(spec, tiles, kernels, objects, self.toolchain, folder)

    def measure(self, batch: Batch, machine: Machine) -> TileRow:
        """Time the batch there. Raises DeployError if the machine does not do it."""
        try:
            with machine.workplace() as place:
                timer = KernelTimer(batch, place, machine.name)
                at, ratio, microseconds = fastest(timer.microseconds, len(batch.tiles))
        except RunError as error:
            message = f"`{machine.name}` does not run the kernels of `{batch.spec}`: "
            raise DeployError(message + error.message, hint=error.hint) from error
        except MachineLostError as error:
            raise DeployError(error.message, hint=AGAIN) from error
        for index in sorted(timer.wrong):
            self.note(f"`{machine.name}`: tile `{batch.tiles[index]}` of `{batch.spec}` is wrong")
        measured_on = _SEPARATOR.join(
            (self.measured_by, f"{printable(machine.name)}, {timer.conditions}")
        )
        tile = batch.tiles[at]
        return TileRow(self.row_target, batch.spec, tile, measured_on, microseconds, ratio)


def plan_search(
    toolchain: Toolchain,
    boards: Sequence[Machine],
    count: int = COUNT,
    note: Callable[[str], None] = lambda text: None,
) -> Search:
    """A search on `boards`, or if there are none on this machine, if it runs the target's code.

    Raises DeployError if a board does not run it, or is not equal to the others.
    """
    machines = tuple(machine_for(toolchain.target, board) for board in boards)
    for other in machines[1:]:
        one, two = machines[0].cpu().model, other.cpu().model
        if one != two:
            raise DeployError(
                f"`{machines[0].name}` has a `{one}`, `{other.name}` a `{two}`: what one measures "
                "is not true of the other",
                hint="tune for each kind of board apart: -o FILE",
            )
    if machines:
        return Search(toolchain, machines, False, count, note)
    try:
        here = machine_for(toolchain.target)
    except NothingRunsError:
        return Search(toolchain, (), False, count, note)
    return Search(toolchain, () if here.emulated else (here,), True, count, note)


class _Timing:
    """What is compiled, ready and timed at a moment of a search; one thread decides."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._idle = list(search.machines)
        self._ready: deque[Batch] = deque()
        self._building: Future[Batch] | None = None
        self._measuring: dict[Future[TileRow], tuple[Machine, Batch]] = {}

    def rows(self, specs: Sequence[Spec]) -> Generator[TileRow, None, None]:
        left = deque(enumerate(specs))
        with ExitStack() as stack:
            prefix = "levit-deploy-"
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
            threads = _cores() + 1 + len(self._idle)  # candidates, one who waits for them, boards
            pool = stack.enter_context(ThreadPoolExecutor(threads))
            stack.callback(pool.shutdown, cancel_futures=True)
            while left or self._building or self._ready or self._measuring:
                while self._idle and self._ready:
                    machine, batch = self._idle.pop(0), self._ready.popleft()
                    timed = pool.submit(self._search.measure, batch, machine)
                    self._measuring[timed] = (machine, batch)
                if left and self._may_build():
                    index, spec = left.popleft()
                    self._building = pool.submit(self._search.build, spec, pool, work / str(index))
                yield from self._wait()

    def _may_build(self) -> bool:
        """One batch for each board in advance."""
        if self._search.here:
            return not (self._building or self._ready or self._measuring)
        return self._building is None and len(self._ready) < len(self._search.machines)

    def _wait(self) -> Iterator[TileRow]:
        """Until something is done; gives rows that are."""
        running: list[Future[Any]] = [*self._measuring]  # of batches and of rows
        if self._building:
            running.append(self._building)
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        if self._building in done:
            self._ready.append(self._building.result())
            self._building = None
        for timed in [future for future in self._measuring if future in done]:
            machine, batch = self._measuring.pop(timed)
            try:
                row = timed.result()
            except DeployError as error:
                self._go_on_without(error)
                self._ready.appendleft(batch)
                continue
            self._idle.append(machine)
            shutil.rmtree(batch.program.parent)
            yield row

    def _go_on_without(self, error: DeployError) -> None:
        """What is left of the machines does the work of one that failed."""
        if not self._idle and not self._measuring:
            raise error
        self._search.note(f"{error.message}: its kernels go to the other boards")


def _cores() -> int:
    return len(os.sched_getaffinity(0))
