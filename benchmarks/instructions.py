"""Instructions of one inference, counted under qemu-user: a model of the cost on ARM, not a time.

    python -m benchmarks.instructions DIR [DIR ...]

Each DIR is an artifact. Start-up cancels out: it is run with one image and with five. Needs `cc`
for the plugin and a qemu-user with the plugin API of 7.2.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.emulator import emulator_command, missing_emulator
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.program_runner import link_run_images

FEW, MANY = 1, 5


def count_instructions(artifact: Artifact) -> int:
    """Guest instructions of one `run` of `artifact` on its target's emulated CPU."""
    target = get_target(artifact.manifest.target)
    emulator = emulator_command(target)
    if emulator is None:
        message, hint = missing_emulator(target)
        raise DeployError(message, hint=hint)
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
        work = Path(name)
        plugin = work / "libicount.so"
        source = Path(__file__).with_name("icount.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, source], check=True)
        program = work / "run_images"
        link_run_images(artifact, find_toolchain(target), program)
        size = artifact.manifest.image_size

        def count(images: int) -> int:
            inputs = work / "images"
            noise = np.random.default_rng(0).standard_normal((images, 3, size, size))
            noise.astype(np.float32).tofile(inputs)
            command = (*emulator, "-plugin", plugin, program, "f32", inputs, work / "logits")
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return int(done.stderr.split()[-1])

        return (count(MANY) - count(FEW)) // (MANY - FEW)


def main() -> None:
    for folder in sys.argv[1:]:
        millions = count_instructions(Artifact.load(Path(folder))) / 1e6
        print(f"{Path(folder).name}: {millions:.1f} million instructions (modelled)")


if __name__ == "__main__":
    main()
