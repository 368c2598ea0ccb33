"""The command that asks boards what they are and how they are doing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import json_option
from levit_deploy.commands.output import bytes_text, columns, print_json, print_text
from levit_deploy.errors import DeployError
from levit_deploy.records import to_plain

if TYPE_CHECKING:
    from levit_deploy.machines.condition import Fix
    from levit_deploy.machines.facts import Cores, Facts


@dataclass(frozen=True)
class Board:
    """One that answered. `target`: None where none fits."""

    url: str
    facts: Facts
    target: str | None
    to_fix: tuple[Fix, ...]


@dataclass(frozen=True)
class Lost:
    """One that did not."""

    url: str
    error: str
    hint: str | None


@dataclass(frozen=True)
class Cleaned:
    """One on which nothing of ours is left."""

    url: str


@click.command("boards")
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--clean", is_flag=True, help="Remove what we keep there; nothing else is done.")
@json_option
def boards_command(urls: tuple[str, ...], clean: bool, as_json: bool) -> None:
    """Show what boards are, which target fits, what to fix.

    CPU, features, cores and their caches, C library, governor, temperature, clock, free memory.
    Exits with 1 if a board does not answer.

    \b
    Examples:
      levit-deploy boards ssh://pi@raspberrypi.local
      levit-deploy boards ssh://pi@one.local ssh://pi@two.local --json
    """
    with ThreadPoolExecutor(len(urls)) as pool:
        found = list(pool.map(_clean if clean else _look_at, urls))
    if as_json:
        print_json({"schema_version": 1, "boards": [_as_json(each) for each in found]})
    else:
        print_text("\n\n".join(_in_words(each) for each in found))
    if any(isinstance(each, Lost) for each in found):
        raise click.exceptions.Exit(1)


def _look_at(url: str) -> Board | Lost:
    from levit_deploy.machines.condition import target_of, what_to_fix
    from levit_deploy.machines.facts import read_facts
    from levit_deploy.machines.open import open_machine

    try:
        with closing(open_machine(url)) as board:
            facts = read_facts(board)
    except DeployError as error:
        return Lost(url, error.message, error.hint)
    try:
        target = target_of(facts).name
    except DeployError:
        target = None
    return Board(url, facts, target, tuple(what_to_fix(facts)))


def _clean(url: str) -> Cleaned | Lost:
    from levit_deploy.machines.open import open_machine

    try:
        open_machine(url).clean()
    except DeployError as error:
        return Lost(url, error.message, error.hint)
    return Cleaned(url)


def _as_json(each: Board | Lost | Cleaned) -> dict[str, object]:
    if not isinstance(each, Board):
        return dict(to_plain(each))
    from levit_deploy.machines.condition import throttling

    facts = to_plain({**vars(each.facts), "cpu": None})
    cpu = each.facts.cpu
    if cpu:
        facts["cpu"] = {"arch": cpu.arch, "model": cpu.model, "features": sorted(cpu.features)}
    now, since_boot = throttling(each.facts)
    return {
        "url": each.url,
        "target": each.target,
        **facts,
        "throttled": {"now": now, "since_boot": since_boot},
        "to_fix": to_plain(each.to_fix),
    }


def _in_words(each: Board | Lost | Cleaned) -> str:
    match each:
        case Cleaned(url):
            return f"{url}: nothing of ours is left there"
        case Lost(url, error, hint):
            return f"{url}: {error}" + (f"; {hint}" if hint else "")
        case Board(url, facts, target, to_fix):
            title = f"{url}: {facts.board}" if facts.board else url
            rows = [("  " + name, value) for name, value in _rows(facts, target) if value]
            fixes = [f"  to fix: {fix.what}: {fix.remedy}" for fix in to_fix]
            return "\n".join((title, columns(rows), *fixes))


def _rows(facts: Facts, target: str | None) -> Iterator[tuple[str, str]]:
    from levit_deploy.machines.condition import telling_features, throttling

    if facts.cpu:
        yield "CPU", facts.cpu.model
        yield "features", ", ".join(telling_features(facts.cpu))
    for kind in facts.cores:
        yield "cores", _cores(kind)
    yield "system", facts.system
    yield "libc", facts.libc or "not known"
    if facts.temperature_c is not None:
        yield "temperature", f"{facts.temperature_c:.0f} C"
    yield "throttled", ", ".join(throttling(facts)[0])
    if facts.free_bytes is not None:
        yield "free memory", bytes_text(facts.free_bytes)
    yield "Python has", ", ".join(facts.runtimes or ())
    yield "fits", f"--target {target}" if target else "no target"


def _cores(kind: Cores) -> str:
    clocks = sorted({clock for clock in kind.mhz if clock})
    now = "-".join(map(str, dict.fromkeys((*clocks[:1], *clocks[-1:]))))
    most = f" of {kind.max_mhz}" if kind.max_mhz else ""
    sizes = {"L1D": kind.l1d_bytes, "L2": kind.l2_bytes, "L3": kind.l3_bytes}
    parts = (
        f"{len(kind.numbers)} x {kind.name}" if kind.name else str(len(kind.numbers)),
        f"{now}{most} MHz" if now else "",
        kind.governor or "",
        *(f"{name} {size >> 10} KiB" for name, size in sizes.items() if size),
    )
    return ", ".join(filter(None, parts))
