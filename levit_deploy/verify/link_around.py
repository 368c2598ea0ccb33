"""A static C program around an artifact's library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.description import expected_description

CSRC = Path(__file__).parent / "csrc"


def link_around(
    artifact: Artifact,
    toolchain: Toolchain,
    sources: Iterable[Path],
    program: Path,
    level: str | None = None,
    flags: Iterable[str] = (),
) -> None:
    """Make `program` of C sources, which csrc/described.h is for, and the static library.

    It runs the library only if that is the one of its manifest, with `level` in use. It is linked
    statically, so that it needs no files of the target's system. Beside it lands description.h.
    Raises DeployError if the header or the library does not fit.
    """
    name = artifact.manifest.name
    description = (*expected_description(artifact.manifest, level).encode(), 0)
    program.with_name("description.h").write_text(
        f"static const unsigned char manifest_says[] = {{{', '.join(map(str, description))}}};\n"
    )
    own = (
        "-I.",  # the program's folder, where the compiler runs
        f"-DMODEL={name}",
        f"-D{name.upper()}_STATIC",
        f'-DHEADER="{artifact.header.name}"',
        f"-I{artifact.files.resolve()}",
    )
    inputs = (*(source.resolve() for source in sources), artifact.static_library.resolve())
    toolchain.link_program(inputs, program, (*own, *flags))
