"""C programs around an artifact: compiled by the toolchain, run here or under an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.toolchain import Toolchain


def link_static(
    toolchain: Toolchain, source: str, artifacts: Sequence[Artifact], folder: Path
) -> Path:
    """A program that contains the artifacts and the C library; needs nothing to run."""
    main = folder / "main.c"
    main.write_text(source)
    output = folder / "program"
    includes = [f"-I{artifact.folder}" for artifact in artifacts]
    archives = [artifact.static_library for artifact in artifacts]
    toolchain.link_program([main, *archives], output, includes)
    return output


def link_dynamic(
    toolchain: Toolchain, source: str, artifacts: Sequence[Artifact], folder: Path
) -> Path:
    """A program that loads the artifacts' shared libraries from where they are."""
    main = folder / "main.c"
    main.write_text(source)
    output = folder / "program"
    command = [*toolchain.compiler, "-O2", str(main), "-o", str(output), "-lpthread"]
    for artifact in artifacts:
        place = artifact.folder.absolute()
        library = artifact.shared_library.absolute()
        command += [f"-I{place}", str(library), f"-Wl,-rpath,{place}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return output


def link_dll(toolchain: Toolchain, source: str, artifact: Artifact, folder: Path) -> Path:
    """A program for Windows that loads the artifact's DLL, which lands beside it."""
    main = folder / "main.c"
    main.write_text(source)
    output = folder / "program.exe"
    shutil.copy(artifact.shared_library, folder)
    library = artifact.files / str(artifact.system.import_library(artifact.name))
    toolchain.link_program([main, library], output, [f"-I{artifact.files}"])
    return output


def self_test_shared_library(
    toolchain: Toolchain, artifact: Artifact, prefix: Sequence[str], folder: Path
) -> str:
    """Output of load_library.c, which needs no dynamic loader of the library's system."""
    program = load_library_program(toolchain, folder)
    return run(program, prefix, arguments=(str(artifact.shared_library), artifact.manifest.name))


def load_library_program(toolchain: Toolchain, folder: Path) -> Path:
    program = folder / "load_library"
    toolchain.link_program([Path(__file__).with_name("load_library.c")], program)
    return program


def run(
    program: Path,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(
        [*prefix, str(program), *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
