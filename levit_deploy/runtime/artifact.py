"""The artifact: a folder with a library in both forms, its header and its manifest.

The debug build: an artifact's program in libraries that let one look inside. A folder with one or
both forms of the library, which have one more function,

    int NAME_taps(const float *image, float *logits, void *workspace,
                  void (*finished)(void *user, int step, const unsigned char *arena), void *user);

(see csrc/taps.c), their header, and taps.json: where each 8-bit tensor is, and after which step.
8-bit artifacts have that file too; with it, instrument.py makes a debug build of any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from levit_deploy.compiler.program import Program, QuantizedTensor
from levit_deploy.errors import DeployError
from levit_deploy.files import write_files
from levit_deploy.records import load_record, to_json
from levit_deploy.runtime.manifest import FileRecord, Manifest

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
    def shared_library(self) -> Path:
        return self.folder / f"lib{self.name}.so"

    @property
    def static_library(self) -> Path:
        return self.folder / f"lib{self.name}.a"

    @property
    def header(self) -> Path:
        return self.folder / f"{self.name}.h"


@dataclass(frozen=True)
class Artifact(Libraries):
    """`folder`: absolute or relative path of `<name>-<target>-<precision>`."""

    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def calibration_table(self) -> Path | None:
        """What the 8-bit model that it was compiled from is made by; None if it is fp32."""
        return self.folder / CALIBRATION_FILE if CALIBRATION_FILE in self.manifest.files else None

    @property
    def debug_folder(self) -> Path | None:
        """The debug build of the same program; None if the artifact has none."""
        has_one = f"{DEBUG_FOLDER}/{TAPS_FILE}" in self.manifest.files
        return self.folder / DEBUG_FOLDER if has_one else None

    @staticmethod
    def load(folder: Path) -> Artifact:
        """Read an artifact folder.

        Raises DeployError if it is none, or if a file is missing or not the one that was built.
        """
        artifact, hint = Artifact(folder, Manifest.load(folder)), "compile the model again"
        for name, record in artifact.manifest.files.items():
            path = folder / name
            try:
                inside = path.resolve().is_relative_to(folder.resolve())
                same = inside and FileRecord.of(path) == record
            except OSError as error:
                raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=hint) from error
            if not same:
                reason = "its SHA-256 differs" if inside else "it lies elsewhere"
                raise DeployError(f"`{path}` is not the file that was built: {reason}", hint=hint)
        return artifact


@dataclass(frozen=True)
class Taps:
    """The content of taps.json. The fields are as in Program."""

    SCHEMA_VERSION: ClassVar[int] = 2

    name: str
    program_digest: str
    tensors: tuple[QuantizedTensor, ...]

    @staticmethod
    def of(program: Program) -> Taps:
        return Taps(program.name, program.digest, program.tensors)

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

    @staticmethod
    def load(folder: Path) -> DebugBuild:
        """Raises DeployError as `Taps.load` does."""
        return DebugBuild(folder, Taps.load(folder))


def folder_name(name: str, target: str, precision: str) -> str:
    """`levit_128s-arm64-int8`, for the library `levit_128s_int8` too."""
    return f"{name.removesuffix(f'_{precision}')}-{target}-{precision}"
