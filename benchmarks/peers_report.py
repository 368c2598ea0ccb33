"""benchmarks/peers.json -> docs/peers.md.

python -m benchmarks.peers_report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("peers.json")
DOCUMENT = Path(__file__).parents[1] / "docs" / "peers.md"


def document(record: Mapping[str, Any]) -> str:
    lines = [
        "# Peers",
        "",
        "Made by `python -m benchmarks.peers`, which explains itself, from",
        f"`benchmarks/{RECORD.name}`. Contenders of a table take turns, in processes of their own.",
        "Times are the shortest of one image where nothing else is said; CPU time is that of all",
        "threads. The last column is our time (the first line's) by theirs, wall and in brackets",
        "CPU: below 1 we are faster.",
        "Each table says what the machine's load average was before it: near 0 it was idle.",
        "",
        f"Code for {record['code']}, {record['machine']}. Networks have random weights.",
        "",
    ]
    for table in record["tables"].values():
        lines += [f"## {table['title']}", "", *section(table), ""]
    return "\n".join(lines).rstrip() + "\n"


def section(table: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{table['note']} Load before: {table['load']:.1f}.".strip(), "")
    yield "| | version | ms | CPU ms | images/s | ours / it |"
    yield "|---|---|---|---|---|---|"
    shown = [Row.of(row, table["shown"]) for row in table["rows"]]
    ours, *others = shown
    for row in (ours, *sorted(others, key=lambda row: row.wall_us)):
        yield f"| {' | '.join(row.cells(ours))} |"


@dataclass(frozen=True)
class Row:
    """The times of one contender that are shown: minima or medians."""

    name: str
    version: str
    wall_us: float
    cpu_us: float

    @classmethod
    def of(cls, latency: Mapping[str, Any], shown: str) -> Row:
        times = (latency[f"{shown}_{kind}_us"] for kind in ("wall", "cpu"))
        return cls(latency["name"], latency["version"], *times)

    def cells(self, ours: Row) -> Sequence[str]:
        ratio = f"{ours.wall_us / self.wall_us:.2f} ({ours.cpu_us / self.cpu_us:.2f})"
        return (
            self.name,
            self.version,
            f"{self.wall_us / 1e3:.2f}",
            f"{self.cpu_us / 1e3:.2f}",
            f"{1e6 / self.wall_us:.0f}",
            "" if self is ours else ratio,
        )


def main() -> None:
    DOCUMENT.write_text(document(json.loads(RECORD.read_text())))


if __name__ == "__main__":
    main()
