"""What the system lets this process do: asked before long work, in words of our own."""

from __future__ import annotations

import os
import threading

from levit_deploy.errors import DeployError

# torch, OpenBLAS, ONNX Runtime and the toolchain start about as many as there are cores, each.
_THREADS_PER_CORE = 4
_OTHER_THREADS = 8


def check_threads() -> None:
    """Raises DeployError unless as many threads as the work takes can be started.

    Where they cannot, the libraries that start them end the process without a word of what to do.
    """
    needed = _THREADS_PER_CORE * (os.cpu_count() or 1) + _OTHER_THREADS
    end = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise DeployError(
            f"only `{len(started)}` of the `{needed}` threads that the work takes can be started",
            hint="raise the limits that `ulimit -a` shows: ulimit -u 4096; ulimit -v unlimited",
        ) from error
    finally:
        end.set()
        for thread in started:
            thread.join()
