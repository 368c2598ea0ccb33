"""From the start of a process to the logits of a first image.

Our library in a C program and in Python, peers in Python: these pay for Python and numpy, so what
these alone take is a contender too. The page cache is warm: all have run before.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.latency import Latency

Command = tuple[str | Path, ...]
NOTE = "Warm page cache. CPU time is that of the whole process, its end included."

C_PROGRAM = """
#include "{name}.h"
#include <stdio.h>
static float image[3 * {size} * {size}], logits[{upper}_CLASSES];
static unsigned char workspace[{upper}_WORKSPACE_BYTES];
int main(void)
{{
    int code = {name}_run(image, logits, workspace);
    printf("%g\\n", logits[0]);
    return code;
}}
"""
OURS = """
import sys
sys.path.insert(0, sys.argv[1])
from array import array
from levit import Model
print(Model().run(array("f", bytes(4 * 3 * 224 * 224)))[0])
"""
NUMPY = """
import numpy as np
print(np.zeros((1, 3, 224, 224), np.float32)[0, 0, 0, 0])
"""
ONNXRUNTIME = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(session.run(None, {"image": np.zeros((1, 3, 224, 224), np.float32)})[0][0, 0])
"""
OPENVINO = """
import sys
import numpy as np
import openvino
core = openvino.Core()
if len(sys.argv) > 2:
    core.set_property({"CACHE_DIR": sys.argv[2]})
model = core.compile_model(sys.argv[1], "CPU", {"INFERENCE_NUM_THREADS": 1})
print(model([np.zeros((1, 3, 224, 224), np.float32)])[0][0, 0])
"""
LITERT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
image = np.zeros((1, 3, 224, 224), np.float32)
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
interpreter.invoke()
print(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0, 0])
"""


def python(script: str, *arguments: str | Path) -> Command:
    return (sys.executable, "-c", script, *arguments)


def c_program(artifact: Artifact) -> Command:
    """With the library linked in; it lies in the artifact's folder afterwards."""
    manifest = artifact.manifest
    name = manifest.name
    source, program = artifact.folder / "cold_start.c", artifact.folder / "cold_start"
    source.write_text(C_PROGRAM.format(name=name, upper=name.upper(), size=manifest.image_size))
    find_toolchain(get_target(manifest.target)).link_program(
        [source, artifact.static_library], program, [f"-I{artifact.folder}"]
    )
    return (program,)


def time_starts(commands: dict[str, Command], rounds: int) -> list[Latency]:
    """Until the first line of output, after one start that does not count; in turns."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(1 + rounds):
        for name, command in commands.items():
            samples[name].append(_start(command))
    return [_latency(name, times[1:]) for name, times in samples.items()]


def _start(command: Command) -> tuple[float, float]:
    """(wall, CPU) seconds; CPU time until the process has ended."""
    before = _children_cpu_s()
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        wall_s = time.perf_counter() - begin
    if not said or process.returncode:
        raise RuntimeError(f"no first answer of {command}")
    return wall_s, _children_cpu_s() - before


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _latency(name: str, samples: Sequence[tuple[float, float]]) -> Latency:
    wall, cpu = ([s * 1e6 for s in column] for column in zip(*samples, strict=True))
    return Latency(
        name, "", len(samples), min(wall), statistics.median(wall), min(cpu), statistics.median(cpu)
    )
