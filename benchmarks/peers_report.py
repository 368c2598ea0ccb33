"""benchmarks/peers.json -> docs/peers.md.

python -m benchmarks.peers_report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
        "Times are the shortest of one image; CPU time is that of all threads. The last column is",
        "our time (the first line's) by theirs, wall and in brackets CPU: below 1 we are faster.",
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
    first, *others = table["rows"]
    for row in (first, *sorted(others, key=lambda row: row["min_wall_us"])):
        yield f"| {' | '.join(cells(row, first))} |"


def cells(row: Mapping[str, Any], first: Mapping[str, Any]) -> Sequence[str]:
    wall_us, cpu_us = row["min_wall_us"], row["min_cpu_us"]
    ratio = f"{first['min_wall_us'] / wall_us:.2f} ({first['min_cpu_us'] / cpu_us:.2f})"
    return (
        row["name"],
        row["version"],
        f"{wall_us / 1e3:.2f}",
        f"{cpu_us / 1e3:.2f}",
        f"{1e6 / wall_us:.0f}",
        "" if row is first else ratio,
    )


def main() -> None:
    DOCUMENT.write_text(document(json.loads(RECORD.read_text())))


if __name__ == "__main__":
    main()
