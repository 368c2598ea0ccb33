"""Read generated assembly: the loops in which a kernel spends its time."""

from __future__ import annotations

import re

BRANCH = re.compile(r"\t(?:j[a-z]+|b|b\.?[a-z]{2}|cbn?z|tbn?z)\t.*?(\.LBB\w+)")


def innermost_loops(assembly: str) -> list[list[str]]:
    """Instructions of every loop that holds no other loop."""
    lines = [line for line in assembly.splitlines() if not line.startswith((".Ltmp", "\t."))]
    labels = {line.split(":")[0]: at for at, line in enumerate(lines) if line.startswith(".LBB")}
    spans = [
        (labels[match[1]], at)
        for at, line in enumerate(lines)
        if (match := BRANCH.match(line)) and labels.get(match[1], at) < at
    ]
    return [
        lines[start:end]
        for start, end in spans
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans)
    ]
