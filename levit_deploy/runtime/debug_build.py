"""The debug build: an artifact's program in libraries that let one look inside.

A folder with one or both forms of the library, which have one more function,

    int NAME_taps(const float *image, float *logits, void *workspace,
                  void (*finished)(void *user, int step, const unsigned char *arena), void *user);

(see csrc/taps.c), their header, and taps.json: where each 8-bit tensor is, and after which step.
8-bit artifacts have that file too; with it, instrument.py makes a debug build of any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from levit_deploy.compiler.program import Program, QuantizedTensor
from levit_deploy.files import write_files
from levit_deploy.records import load_record, to_json

FILE_NAME = "taps.json"


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
        write_files({folder / FILE_NAME: to_json(self).encode()}, hint="choose another: -o DIR")

    @staticmethod
    def load(folder: Path) -> Taps:
        """Read `folder`/taps.json; raises DeployError if it is missing, damaged or of another
        schema version."""
        return load_record(Taps, folder / FILE_NAME, hint="compile the model again")


@dataclass(frozen=True)
class DebugBuild:
    """`folder`: where it is. `taps`: where its 8-bit tensors are."""

    folder: Path
    taps: Taps

    @property
    def shared_library(self) -> Path:
        return self.folder / f"lib{self.taps.name}.so"

    @property
    def static_library(self) -> Path:
        return self.folder / f"lib{self.taps.name}.a"

    @property
    def header(self) -> Path:
        return self.folder / f"{self.taps.name}.h"

    @staticmethod
    def load(folder: Path) -> DebugBuild:
        """Raises DeployError as `Taps.load` does."""
        return DebugBuild(folder, Taps.load(folder))
