"""Instructions of one inference, counted under qemu-user: a model of the cost on ARM, not a time.

    python -m benchmarks.instructions DIR [DIR ...]

Each DIR is an artifact; one for several CPUs is counted as each of them. Start-up cancels out: it
is run with one image and with five. Needs `cc` for the plugin and a qemu-user with the plugin API
of 7.2.
"""

from __future__ import annotations

import os
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


def count_instructions(artifact: Artifact, level: str | None = None) -> int:
    """Guest instructions of one `run` of `artifact` on its target's emulated CPU, or that of one of
    its levels."""
    target = get_target(level or artifact.manifest.target)
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
        link_run_images(artifact, find_toolchain(target), program, level)
        forced = {"LEVIT_DEPLOY_LEVEL": level} if level else {}
        size = artifact.manifest.image_size

        def count(images: int) -> int:
            inputs = work / "images"
            noise = np.random.default_rng(0).standard_normal((images, 3, size, size))
            noise.astype(np.float32).tofile(inputs)
            command = (*emulator, "-plugin", plugin, program, "run", inputs, work / "logits")
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, **forced}
            )
            return int(done.stderr.split()[-1])

        return (count(MANY) - count(FEW)) // (MANY - FEW)


def main() -> None:
    for folder in sys.argv[1:]:
        artifact = Artifact.load(Path(folder))
        for level in artifact.manifest.levels or (None,):
            millions = count_instructions(artifact, level) / 1e6
            used = f" as {level}" if level else ""
            print(f"{artifact.folder.name}{used}: {millions:.1f} million instructions (modelled)")


if __name__ == "__main__":
    main()
