"""Artifact -> the same code with a clock around each step: csrc/profile.c and its static library.

No kernel is compiled again: what is timed is what ships.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.driver import CSRC
from levit_deploy.targets.toolchain import Toolchain

# What csrc/profile.c asks of the program.h that the library was made with.
_PROGRAM_HEADER = """\
#include "{name}.h"
#define NAME(suffix) {name}_##suffix
#define CODE(suffix) {upper}_##suffix
#define STEPS {steps}
"""


def build_profile_library(artifact: Artifact, toolchain: Toolchain, output: Path) -> None:
    """Make the shared library `output`, which has `<name>_profile` (see csrc/profile.c).

    `toolchain`: for the artifact's target. Raises DeployError if it cannot be linked.
    """
    manifest = artifact.manifest
    header = _PROGRAM_HEADER.format(
        name=manifest.name, upper=manifest.name.upper(), steps=len(manifest.kernels)
    )
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".profile-") as name:
        work = Path(name)
        for source in (CSRC / "library.h", CSRC / "profile.c", artifact.header):
            shutil.copyfile(source, work / source.name)
        (work / "program.h").write_text(header)
        compiled, library = work / f"{manifest.name}_profile.o", work / output.name
        toolchain.compile(work / "profile.c", compiled)
        toolchain.link_shared((compiled, artifact.static_library.resolve()), library)
        library.replace(output)
