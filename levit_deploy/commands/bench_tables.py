"""What `bench` found, in columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.output import print_columns, print_text

if TYPE_CHECKING:
    from levit_deploy.verify.bench_program import BoardBench, BoardLatency, Condition
    from levit_deploy.verify.kernel_profile import KernelTime
    from levit_deploy.verify.latency import Latency

_FORBIDDEN = ("Permission denied", "Operation not permitted")
_LET_COUNT = "let it: sudo sysctl kernel.perf_event_paranoid=2"


def print_latencies(latencies: Sequence[Latency], missing: Sequence[str]) -> None:
    ours = latencies[0]
    rows: list[tuple[str, ...]] = [
        ("", "VERSION", "MIN", "MEDIAN", "CPU MIN", "RATIO OF MIN", "RATIO OF CPU")
    ]
    rows += [(latency.name, *_times(latency, ours)) for latency in latencies]
    rows += [(name, "not installed", "", "", "", "", "") for name in missing]
    print_columns(rows)


def print_board_bench(found: BoardBench) -> None:
    """Each number of threads by itself, then how the board was doing."""
    rows: list[tuple[str, ...]] = [
        (
            *("", "THREADS", "VERSION", "MIN", "MEDIAN", "CPU MIN", "RATIO OF MIN"),
            *("RATIO OF CPU", "CLOCK", "INSTRUCTIONS", "A CYCLE", "CACHE MISSES"),
        )
    ]
    ours: dict[int, BoardLatency] = {}
    for latency in found.latencies:
        mine = ours.setdefault(latency.threads, latency)
        times = _times(latency, mine)
        rows.append((latency.name, str(latency.threads), *times, *_counts(latency)))
    used = [any(cells) for cells in zip(*rows[1:], strict=True)]
    print_columns(
        [cell for cell, is_used in zip(row, used, strict=True) if is_used] for row in rows
    )
    place = "an emulator, whose times say nothing" if found.emulated else found.cpu
    lines = [f"on {found.machine} ({place}), {found.system}"]
    if found.before and found.after:
        lines.append(f"n threads had the first n of its cores {_cores(found)}")
        lines.append(f"before: {_condition(found.before)}; after: {_condition(found.after)}")
    if found.no_counters:
        hint = f"; {_LET_COUNT}" if found.no_counters in _FORBIDDEN else ""
        lines.append(f"its kernel counts nothing for us ({found.no_counters}){hint}")
    lines += [f"{name} is not there; to get it: pip install {name}" for name in found.missing]
    if found.held_back:
        lines.append(f"THROTTLED ({found.held_back}): these times are not what the board can do")
        lines.append(f"what to fix: levit-deploy boards {found.machine}")
    print_text("\n".join(("", *lines)))


def print_profile(profile: Sequence[KernelTime]) -> None:
    total = sum(kernel.min_us for kernel in profile)
    rows = [("KERNEL", "SHAPE", "TIME", "SHARE", "GFLOP/S", "OF PEAK")]
    for kernel in profile:
        rates = f"{kernel.gflops:.1f}", f"{kernel.share_of_peak:.0%}"
        share = f"{kernel.min_us / total:.1%}"
        rows.append((kernel.kind, kernel.shape, f"{kernel.min_us:.1f} us", share, *rates))
    print_columns(rows)
    flops = sum(kernel.gflops * kernel.min_us for kernel in profile) / total
    peak = sum(kernel.share_of_peak * kernel.min_us for kernel in profile) / total
    click.echo(
        f"all together {total:.0f} us, {flops:.1f} GFLOP/s, {peak:.0%} of the core's fp32 peak"
    )


def _times(latency: Latency, ours: Latency) -> tuple[str, ...]:
    """VERSION to RATIO OF CPU."""
    ratios = ("", "")
    if latency is not ours:
        wall = ours.min_wall_us / latency.min_wall_us
        ratios = f"{wall:.3f}", f"{ours.min_cpu_us / latency.min_cpu_us:.3f}"
    times = (latency.min_wall_us, latency.median_wall_us, latency.min_cpu_us)
    return (latency.version, *(f"{time / 1e3:.2f} ms" for time in times), *ratios)


def _counts(latency: BoardLatency) -> tuple[str, ...]:
    """CLOCK to CACHE MISSES; empty cells for what was not seen."""
    clocks = sorted({clock for clock in (latency.lowest_mhz, latency.highest_mhz) if clock})
    per_cycle = ""
    if latency.instructions and latency.cycles:
        per_cycle = f"{latency.instructions / latency.cycles:.2f}"
    return (
        f"{'-'.join(map(str, clocks))} MHz" if clocks else "",
        f"{latency.instructions / 1e6:.1f} M" if latency.instructions else "",
        per_cycle,
        f"{latency.cache_misses / 1e3:.1f} k" if latency.cache_misses is not None else "",
    )


def _cores(found: BoardBench) -> str:
    """`4, 5 (Cortex-A72), 0, 1 (Cortex-A53)`"""
    groups = itertools.groupby(zip(found.cores, found.kinds, strict=True), lambda core: core[1])
    return ", ".join(
        ", ".join(str(number) for number, _ in cores) + (f" ({kind})" if kind else "")
        for kind, cores in groups
    )


def _condition(condition: Condition) -> str:
    parts = (
        f"governor {condition.governor}" if condition.governor else "",
        f"{condition.mhz} MHz" if condition.mhz else "",
        f"{condition.temperature_c:.0f} C" if condition.temperature_c is not None else "",
    )
    return ", ".join(filter(None, parts)) or "clock and temperature not known"
