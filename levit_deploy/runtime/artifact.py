"""The artifact: a folder with a library in both forms, its header and its manifest.

The debug build: an artifact's program in libraries that let one look inside. A folder with one or
both forms of the library, which have one more function,

    int NAME_taps(const float *image, float *logits, void *workspace,
                  void (*finished)(void *user, int step, const unsigned char *arena), void *user);

(see csrc/taps.c), their header, and taps.json: where each 8-bit tensor is, and after which step.
8-bit artifacts have that file too; with it, instrument.py makes a debug build of any of them.
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from levit_deploy.compiler.program import Program, QuantizedTensor
from levit_deploy.errors import DeployError
from levit_deploy.files import write_files
from levit_deploy.records import load_record, to_json
from levit_deploy.runtime.manifest import Manifest
from levit_deploy.targets.system import Os, System

CALIBRATION_FILE = "calibration.json"
DEBUG_FOLDER = "debug"
TAPS_FILE = "taps.json"


@dataclass(frozen=True)
class Libraries(ABC):
    """`folder`: where the libraries of one program and their header are."""

    folder: Path

    @property
    @abstractmethod
    def name(self) -> str:
        """The library's, which its symbols begin with."""

    @property
    @abstractmethod
    def system(self) -> System:
        """What they are for; their files are called by it."""

    @property
    def files(self) -> Path:
        """Where to read what it has."""
        return self.folder

    @property
    def shared_library(self) -> Path:
        """Raises DeployError if the system has none."""
        name = self.system.shared_library(self.name)
        if name is None:
            raise DeployError(
                f"`{self.folder}` has no shared library: apps of {self.system.os} are linked with "
                f"`{self.static_library.name}`"
            )
        return self.files / name

    @property
    def built_files(self) -> tuple[str, ...]:
        """The names of the libraries and of the header."""
        return (*self.system.libraries(self.name), self.header.name)

    @property
    def static_library(self) -> Path:
        return self.files / self.system.static_library(self.name)

    @property
    def header(self) -> Path:
        return self.files / f"{self.name}.h"


@dataclass(frozen=True)
class Artifact(Libraries):
    """`folder`: absolute or relative path of `<name>-<target>-<precision>`. `copy`: where its files
    are as they were when it was opened; None: in `folder`, as they are now."""

    manifest: Manifest
    copy: Path | None = None

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def system(self) -> System:
        return System.parse(self.manifest.system)

    @property
    def files(self) -> Path:
        return self.copy or self.folder

    @property
    def calibration_table(self) -> Path | None:
        """What the 8-bit model that it was compiled from is made by; None if it is fp32."""
        return self.files / CALIBRATION_FILE if CALIBRATION_FILE in self.manifest.files else None

    @property
    def debug_folder(self) -> Path | None:
        """The debug build of the same program; None if the artifact has none."""
        has_one = f"{DEBUG_FOLDER}/{TAPS_FILE}" in self.manifest.files
        return self.files / DEBUG_FOLDER if has_one else None

    @staticmethod
    def load(folder: Path, copy: Path | None = None) -> Artifact:
        """Read an artifact folder; nothing in it is executed. `copy` gets what was read.

        Raises DeployError if it is none, if its manifest contradicts itself or does not name its
        library, or if a file is missing or not the one that was built.
        """
        artifact, hint = Artifact(folder, Manifest.load(folder), copy), "compile the model again"
        if artifact.manifest.build_id != artifact.manifest.facts_digest:
            raise DeployError(
                f"the manifest of `{folder}` was changed: its `build_id` is of others", hint=hint
            )
        for name in artifact.built_files:
            if name not in artifact.manifest.files:
                raise DeployError(f"the manifest of `{folder}` does not name `{name}`", hint=hint)
        for name, record in artifact.manifest.files.items():
            path = folder / name
            try:
                inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
                same = inside and record.is_of(path, copy / name if copy else None)
            except OSError as error:
                raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=hint) from error
            if not same:
                reason = "its SHA-256 differs" if inside else "it lies elsewhere"
                raise DeployError(f"`{path}` is not the file that was built: {reason}", hint=hint)
        return artifact

    def is_in_place(self) -> bool:
        """Whether its folder still holds this build."""
        return Manifest.load(self.folder).build_id == self.manifest.build_id


@contextmanager
def open_artifact(folder: Path) -> Iterator[Artifact]:
    """The artifact as it is now, whatever becomes of its folder: the files are a private copy.

    Raises DeployError as `Artifact.load` does.
    """
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as copy:
        yield Artifact.load(folder, Path(copy))


@dataclass(frozen=True)
class Taps:
    """The content of taps.json. The fields are as in Program, and `system` as in the manifest."""

    SCHEMA_VERSION: ClassVar[int] = 3

    name: str
    program_digest: str
    system: str
    tensors: tuple[QuantizedTensor, ...]

    @staticmethod
    def of(program: Program, system: System) -> Taps:
        return Taps(program.name, program.digest, str(system), program.tensors)

    def save(self, folder: Path) -> None:
        """Write `folder`/taps.json, the numbers of a tensor in one line."""
        write_files({folder / TAPS_FILE: to_json(self).encode()}, hint="choose another: -o DIR")

    @staticmethod
    def load(folder: Path) -> Taps:
        """Read `folder`/taps.json; raises DeployError if it is missing, damaged or of another
        schema version."""
        return load_record(Taps, folder / TAPS_FILE, hint="compile the model again")


@dataclass(frozen=True)
class DebugBuild(Libraries):
    """`taps`: where its 8-bit tensors are."""

    taps: Taps

    @property
    def name(self) -> str:
        return self.taps.name

    @property
    def system(self) -> System:
        return System.parse(self.taps.system)

    @staticmethod
    def load(folder: Path) -> DebugBuild:
        """Raises DeployError as `Taps.load` does."""
        return DebugBuild(folder, Taps.load(folder))


def folder_name(name: str, target: str, precision: str, os: Os = Os.LINUX) -> str:
    """`levit_128s-arm64-int8`, for the library `levit_128s_int8` too, or
    `levit_128s-arm64-android-int8`."""
    place = target if os is Os.LINUX else f"{target}-{os}"
    return f"{name.removesuffix(f'_{precision}')}-{place}-{precision}"
