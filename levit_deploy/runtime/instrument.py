"""Artifact -> the same code with a look inside: its static library and one more C file of csrc/.

Nothing is compiled again: what is looked into is what ships.

    profile.c   a clock around each step
    taps.c      the arena after each step; taps.json says where the 8-bit tensors are
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from levit_deploy.runtime.artifact import Artifact, DebugBuild, Taps
from levit_deploy.runtime.driver import CSRC
from levit_deploy.targets.toolchain import Toolchain

# What these files ask of the program.h that the library was made with.
_PROGRAM_HEADER = """\
#define {upper}_STATIC
#include "{name}.h"
#define NAME(suffix) {name}_##suffix
#define CODE(suffix) {upper}_##suffix
#define STEPS {steps}
"""


def build_profile_library(artifact: Artifact, toolchain: Toolchain, output: Path) -> None:
    """Make the shared library `output`, which has `<name>_profile`.

    `toolchain`: for the artifact's target. Raises DeployError if it cannot be linked.
    """
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".profile-") as name:
        work = Path(name)
        compiled = _compile(artifact, toolchain, "profile.c", work)
        library = work / output.name
        toolchain.link_shared((compiled, artifact.static_library.resolve()), library)
        library.replace(output)


def build_taps(artifact: Artifact, toolchain: Toolchain, folder: Path) -> DebugBuild:
    """Make the debug build of an 8-bit artifact in `folder`, which must not exist; its static
    library only.

    `toolchain`: for the artifact's target. Raises DeployError if the artifact does not say where
    its 8-bit tensors are, or if it cannot be linked.
    """
    build = DebugBuild(folder, Taps.load(artifact.files))
    folder.mkdir(parents=True)
    for file in (artifact.static_library, artifact.header):
        shutil.copyfile(file, folder / file.name)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as name:
        compiled = _compile(artifact, toolchain, "taps.c", Path(name))
        toolchain.add_to_archive((compiled,), build.static_library)
    build.taps.save(folder)
    return build


def write_program_header(artifact: Artifact, folder: Path) -> None:
    """`folder`/program.h, for whoever compiles one of these files beside it."""
    name, steps = artifact.manifest.name, len(artifact.manifest.kernels)
    header = _PROGRAM_HEADER.format(name=name, upper=name.upper(), steps=steps)
    (folder / "program.h").write_text(header)


def _compile(artifact: Artifact, toolchain: Toolchain, source: str, work: Path) -> Path:
    manifest = artifact.manifest
    for file in (CSRC / "library.h", CSRC / source, artifact.header):
        shutil.copyfile(file, work / file.name)
    write_program_header(artifact, work)
    compiled = work / f"{manifest.name}_{Path(source).stem}.o"
    toolchain.compile(work / source, compiled)
    return compiled
