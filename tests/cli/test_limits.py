"""Low limits are told before the work."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import TINY_WEIGHTS

LIMITED = """
import resource, sys
from levit_deploy.models.spec import FAMILY, TINY
from levit_deploy.cli import main
import rich.console, rich.progress
FAMILY[TINY.name] = TINY
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + {megabytes} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
main(["export", "levit_tiny", "--weights", sys.argv[1], "-o", "tiny.onnx"])
"""


def test_no_room_for_threads(tmp_path: Path) -> None:
    """Their stacks take address space."""
    command = [sys.executable, "-c", LIMITED.format(megabytes=40), TINY_WEIGHTS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    needed = 4 * os.cpu_count() + 8
    assert f"of the `{needed}` threads that the work takes can be started" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("hint: ")
    assert len(done.stderr.splitlines()) == 3


def test_threads_of_the_check_end() -> None:
    code = (  # in a process where nobody else makes threads
        "import os, time; from levit_deploy.commands.limits import check_threads\n"
        "check_threads(); time.sleep(0.5); print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
