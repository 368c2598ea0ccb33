"""Times the kernels of a batch on the machine where they will run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from levit_deploy.compiler.tuning.batch import Batch
from levit_deploy.errors import DeployError
from levit_deploy.machines.machine import Workplace
from levit_deploy.records import from_plain, parse_json

AGAIN = "run the same command again when it is well: it goes on where it stopped"


@dataclass(frozen=True)
class _Printed:
    """What csrc/time_kernels.c says."""

    os: str
    clock_mhz: float | None
    busy: bool
    microseconds: tuple[float | None, ...]


class KernelTimer:
    """Puts `batch` into `place`, which is on the machine of that name.

    `wrong`: the kernels that did not compute there what kernel 0 does. `conditions`: the system and
    the clock of the last time.
    """

    def __init__(self, batch: Batch, place: Workplace, name: str) -> None:
        self._place, self._name = place, name
        self.wrong: set[int] = set()
        self.conditions = ""
        place.put(batch.program, "time_kernels", executable=True)
        place.put(batch.operands, "operands")

    def microseconds(self, wanted: Sequence[int], rounds: int) -> Sequence[float | None]:
        """Of one call of each of the kernels `wanted`, on one thread, by interleaved rounds; None
        for one that is wrong.

        Raises DeployError if the machine stays busy, and RunError or MachineLostError as it does.
        """
        said = self._place.run(["time_kernels", str(rounds), *map(str, wanted)])
        plain = parse_json(said.encode(), self._name, hint=AGAIN)
        printed = from_plain(_Printed, plain, self._name, hint=AGAIN)
        if printed.busy:
            raise DeployError(f"`{self._name}` is too busy to time kernels", hint=AGAIN)
        times = dict(zip(wanted, printed.microseconds, strict=True))
        self.wrong |= {index for index, time in times.items() if time is None}
        if 0 in self.wrong:
            raise DeployError(
                f"`{self._name}` computes two results from the same numbers",
                hint="check its memory, its clock and its power supply",
            )
        clock = f", {printed.clock_mhz:.0f} MHz" if printed.clock_mhz else ""
        self.conditions = f"{printed.os}{clock}"
        return printed.microseconds
