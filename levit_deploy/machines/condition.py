"""What facts mean: which target fits, what to fix, whether a measurement was held back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from levit_deploy.errors import DeployError
from levit_deploy.machines.facts import Facts
from levit_deploy.targets.host import Cpu
from levit_deploy.targets.table import TARGETS, fitting_target
from levit_deploy.targets.target import Target

HOT_C = 80.0  # where a Raspberry Pi and most phones begin to lower their clocks
_COUNTERS_PARANOID = 2  # the largest level at which a process may count what it does itself
_GOVERNOR_FILES = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"

# What tells the classes of CPUs apart, of all that /proc/cpuinfo lists.
_TELLING = (
    *("sse4_2", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16"),
    *("neon", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)

# Bits of `vcgencmd get_throttled`, of now; 16 higher of any time since the machine was started
# (Raspberry Pi documentation, "vcgencmd").
_THROTTLED_BITS = (
    "under-voltage",
    "the clock is capped",
    "throttled",
    "at the soft limit of temperature",
)
_SINCE_BOOT = 16
_REMEDIES = ("a stronger power supply", "a heat sink or a fan")


@dataclass(frozen=True)
class Fix:
    """`what` is not as it should be; `remedy`: a line to type there, or what to do."""

    what: str
    remedy: str


def target_of(facts: Facts) -> Target:
    """The board's own row of the table if it has one, else the class of its CPU.

    Raises DeployError if its CPU runs none of them, or is of no architecture that we know.
    """
    if facts.cpu is None:
        raise DeployError(
            f"`{facts.system}` cannot run the libraries made here",
            hint="`levit-deploy targets` lists the CPUs that can",
        )
    board = _letters(facts.board)
    for target in TARGETS.values():
        of_a_board = target.base is not None and not target.levels
        name = _letters(target.description.partition("(")[0])
        if of_a_board and name in board and facts.cpu.runs(target):
            return target
    return fitting_target(facts.cpu)


def telling_features(cpu: Cpu) -> tuple[str, ...]:
    """Those of its features that decide which code it runs."""
    return tuple(name for name in _TELLING if name in cpu.features)


def _letters(text: str) -> str:
    """`NXP i.MX8MPlus` and `NXP i.MX 8M Plus` alike."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def throttling(facts: Facts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the firmware of a Raspberry Pi says: (now, at any time since it was started)."""
    bits = facts.throttled or 0
    return _bits(bits), _bits(bits >> _SINCE_BOOT)


def _bits(value: int) -> tuple[str, ...]:
    return tuple(words for bit, words in enumerate(_THROTTLED_BITS) if value >> bit & 1)


def held_back(before: Facts, after: Facts, core: int, lowest_mhz: int | None) -> str | None:
    """In words, why the machine did not run at its full clock between two moments; None if it did.

    The firmware says it where there is one that does; elsewhere it is a clock below the largest on
    a hot machine. `lowest_mhz`: of `core`, as seen in between; None if nobody could tell.
    """
    if after.throttled is not None:
        during = _bits((after.throttled & ~(before.throttled or 0)) >> _SINCE_BOOT)
        found = dict.fromkeys((*throttling(before)[0], *throttling(after)[0], *during))
        return ", ".join(found) or None
    most_mhz = after.kind_of(core).max_mhz
    hottest_c = max(before.temperature_c or 0.0, after.temperature_c or 0.0)
    if lowest_mhz and most_mhz and lowest_mhz < most_mhz and hottest_c > HOT_C:
        return f"{lowest_mhz} of {most_mhz} MHz at {hottest_c:.0f} C"
    return None


def what_to_fix(facts: Facts) -> Iterator[Fix]:
    """What keeps the machine from being measured well, or from being used at all."""
    if facts.programs_32bit:
        yield Fix(
            "its kernel has 64 bits, its programs have 32",
            "apps there take a library of --target armv7",
        )
    if facts.no_exec:
        yield Fix(
            f"nothing in {facts.no_exec} may be executed", f"mount -o remount,exec {facts.no_exec}"
        )
    governors = {kind.governor for kind in facts.cores if kind.governor}
    if governors - {"performance"}:
        yield Fix(
            f"the clock goes up and down (governor {', '.join(sorted(governors))})",
            f"echo performance | sudo tee {_GOVERNOR_FILES}",
        )
    now, since_boot = throttling(facts)
    for words in since_boot:
        when = "now" if words in now else "since it was started"
        power = words == _THROTTLED_BITS[0]
        yield Fix(f"{words} ({when})", _REMEDIES[0 if power else 1])
    if facts.throttled is None and (facts.temperature_c or 0.0) > HOT_C:
        yield Fix(f"it is {facts.temperature_c:.0f} C hot", _REMEDIES[1])
    if (facts.perf_event_paranoid or 0) > _COUNTERS_PARANOID:
        yield Fix(
            "its kernel lets nobody count cycles",
            f"sudo sysctl kernel.perf_event_paranoid={_COUNTERS_PARANOID}",
        )
