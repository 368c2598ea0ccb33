"""benchmarks.peers: what it counts and what it writes, not how fast anything is."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.cold_start import time_starts
from benchmarks.peer_worker import times
from benchmarks.peers_report import DOCUMENT, RECORD, document


def test_the_document_is_what_the_record_says() -> None:
    assert document(json.loads(RECORD.read_text())) == DOCUMENT.read_text()


def row(name: str, wall_us: float, cpu_us: float) -> dict[str, Any]:
    return {"name": name, "version": "1", "min_wall_us": wall_us, "min_cpu_us": cpu_us}


def test_ratios_are_ours_by_theirs_and_the_fastest_peer_comes_first() -> None:
    rows = [row("ours", 1000, 2000), row("slow", 4000, 4000), row("fast", 2000, 2500)]
    table = {"title": "T", "note": "N.", "load": 0.25, "shown": "min", "rows": rows}
    text = document({"machine": "M", "code": "C", "tables": {"t": table}})
    ours, *peers = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert ours == "| ours | 1 | 1.00 | 2.00 | 1000 |  |"
    assert peers == [
        "| fast | 1 | 2.00 | 2.50 | 500 | 0.50 (0.80) |",
        "| slow | 1 | 4.00 | 4.00 | 250 | 0.25 (0.50) |",
    ]
    assert "N. Load before: 0.2." in text


@pytest.mark.parametrize(("streams", "batch", "images", "calls"), [(1, 4, 16, 4), (2, 1, 6, 3)])
def test_every_stream_makes_its_share_of_the_images(
    streams: int, batch: int, images: int, calls: int
) -> None:
    """Streams call at the same time: alone, each would wait at the barrier for ever."""
    barrier = threading.Barrier(streams, timeout=30)
    counts = [0] * streams

    def call(stream: int) -> None:
        barrier.wait()
        counts[stream] += 1

    with ThreadPoolExecutor(streams) as pool:
        samples = times([lambda s=s: call(s) for s in range(streams)], batch, images, pool)
    assert counts == [calls] * streams
    assert len(samples) == (calls if streams == 1 else 1)


def test_a_start_lasts_until_the_first_line() -> None:
    nap_s = 0.3
    script = f"import time; print(1, flush=True); time.sleep({nap_s})"
    begin = time.perf_counter()
    (latency,) = time_starts({"late to end": (sys.executable, "-c", script)}, 1)
    two_starts_s = time.perf_counter() - begin
    assert latency.images == 1
    assert latency.min_wall_us / 1e6 < two_starts_s - 2 * nap_s
    with pytest.raises(RuntimeError, match="no first answer"):
        time_starts({"mute": (sys.executable, "-c", "")}, 1)
