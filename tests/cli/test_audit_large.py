"""audit on many images: memory does not grow with them, and a kill costs no more than a chunk."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import TINY_WEIGHTS, Spawner
from tests.cli.test_audit import report_bytes

GUESSES = 1  # of noise nobody can know the class, and a reference that guesses is never shipped
GROWTH_MB = 32  # of the whole process; each further chunk of 64 decoded images would take 3 MB


def synthetic(folder: Path, images: int) -> Path:
    """So many pictures of noise, in a folder for each of ten classes."""
    rng = np.random.default_rng(0)
    for index in range(images):
        path = folder / f"{index % 10}" / f"{index:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)
    return folder


def chunks_in(report: Path) -> int:
    return len(list(report.glob(".audit/chunk-*.npz")))


def resident_mb(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    lines = (line.split() for line in status.splitlines() if line.startswith("VmRSS"))
    return next((int(kilobytes) / 1024 for _, kilobytes, _ in lines), 0.0)


@pytest.mark.parametrize("images", [256, pytest.param(50_000, marks=pytest.mark.slow)])
def test_many_images(spawner: Spawner, fp32: Path, images: int):
    data, chunks = synthetic(spawner.folder / "data", images), -(-images // 64)
    args = ("audit", fp32, "--weights", TINY_WEIGHTS, "--data", data, "--max-drop", "100")
    early = late = 0.0
    whole = spawner.folder / "whole"
    with spawner.start(*args, "-o", whole) as process:
        while process.poll() is None:
            done, now = chunks_in(whole), resident_mb(process)
            if done <= chunks // 4:
                early = max(early, now)
            else:
                late = max(late, now)
            time.sleep(0.02)
        assert process.returncode == GUESSES, process.communicate()[1]
    assert 0 < late < early + GROWTH_MB

    killed = spawner.folder / "killed"
    with spawner.start(*args, "-o", killed) as process:
        while process.poll() is None and chunks_in(killed) < chunks // 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert chunks // 2 <= chunks_in(killed) < chunks
    assert spawner.run(*args, "-o", killed, "--resume").returncode == GUESSES
    assert report_bytes(killed) == report_bytes(whole)
