"""A debug build in a C program that keeps running, on any machine.

Images go in through its stdin, logits and 8-bit tensors come out of its stdout: a library that
crashes takes nothing else along, and an emulator starts once.
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.program import QuantizedTensor
from levit_deploy.machines.board import Board
from levit_deploy.machines.machine import TIMEOUT_S, Machine, MachineLostError, RunError
from levit_deploy.machines.process import how_it_ended
from levit_deploy.runtime.artifact import DebugBuild
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.comparison import Logits

SOURCE = Path(__file__).parent / "csrc" / "run_taps.c"


class TappedProgram:
    """A context manager: the program runs inside of the block.

    `machines`: where; on the next one, if a board is lost. Raises DeployError if the program cannot
    be linked.
    """

    def __init__(
        self, build: DebugBuild, classes: int, toolchain: Toolchain, *machines: Machine
    ) -> None:
        self._build, self._classes = build, classes
        self._toolchain, self._machines = toolchain, list(machines)
        self._turn = threading.Lock()

    def run(self, image: NDArray[np.float32]) -> tuple[Logits, list[NDArray[np.generic]]]:
        """A normalised image (channels, size, size) -> logits (classes,), and of each 8-bit tensor
        (rows, channels) what is stored.

        Threads take turns. Raises RunError if the program crashed, hung or returned an error code,
        MachineLostError if no board is left.
        """
        with self._turn:
            try:
                logits, data = self._answer(image)
            except RunError:
                if not isinstance(self._machines[0], Board):
                    raise
                self._stack.close()  # it may have been the connection
                self._open()
                logits, data = self._answer(image)
        return logits, list(map(stored, self._build.taps.tensors, data))

    def _answer(self, image: NDArray[np.float32]) -> tuple[Logits, list[bytes]]:
        watchdog = threading.Timer(TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            self._write(np.ascontiguousarray(image, np.float32).tobytes())
            logits = np.frombuffer(self._read(4 * self._classes), np.float32)
            return logits, [self._read(tensor.size_bytes) for tensor in self._build.taps.tensors]
        except BrokenPipeError:
            raise self._end() from None
        finally:
            watchdog.cancel()

    def __enter__(self) -> Self:
        self._open()
        return self

    def _open(self) -> None:
        """On the first machine that is there."""
        while True:
            try:
                return self._start_on(self._machines[0])
            except MachineLostError:
                if len(self._machines) == 1:
                    raise
                del self._machines[0]

    def _start_on(self, machine: Machine) -> None:
        build = self._build
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="levit-deploy-")))
            program = work / "run_taps"
            flags = (
                f"-DMODEL={build.taps.name}",
                f'-DHEADER="{build.header.name}"',
                f"-I{build.folder.resolve()}",
            )
            inputs = (SOURCE.resolve(), build.static_library.resolve())
            self._toolchain.link_program(inputs, program, flags)
            places = (f"{t.step}:{t.offset_bytes}:{t.size_bytes}" for t in build.taps.tensors)
            there = stack.enter_context(machine.workplace())
            there.put(program, program.name, executable=True)
            self._stderr = stack.enter_context((work / "stderr").open("w+"))
            self._process = there.start((program.name, *places), self._stderr)
            stack.callback(self._end_process)
            self._stack = stack.pop_all()

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _end_process(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise self._end()
        return data

    def _end(self) -> RunError:
        returncode = self._process.wait()
        self._stderr.seek(0)
        return RunError(how_it_ended(returncode, self._stderr.read()))


def stored(tensor: QuantizedTensor, data: bytes) -> NDArray[np.generic]:
    """The bytes of a tensor in the order of its rows and channels, (rows, channels)."""
    row, channel = np.ogrid[: tensor.rows, : tensor.channels]
    pair, odd, block = tensor.strides
    places = row // 2 * pair + row % 2 * odd + channel // 8 * block + channel % 8
    values: NDArray[np.generic] = np.frombuffer(data, np.int8 if tensor.signed else np.uint8)
    ordered: NDArray[np.generic] = values[places]
    return ordered
