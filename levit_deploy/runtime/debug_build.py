"""The debug build: an artifact's program in libraries that let one look inside.

A folder with one or both forms of the library, which have one more function,

    int NAME_taps(const float *image, float *logits, void *workspace,
                  void (*finished)(void *user, int step, const unsigned char *arena), void *user);

(see csrc/taps.c), their header, and taps.json: where each 8-bit tensor is, and after which step.
8-bit artifacts have that file too; with it, instrument.py makes a debug build of any of them.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from levit_deploy.compiler.program import Program
from levit_deploy.compiler.program import QuantizedTensor as QuantizedTensor
from levit_deploy.errors import DeployError

SCHEMA_VERSION = 1
FILE_NAME = "taps.json"
_HINT = "compile the model again"


@dataclass(frozen=True)
class DebugBuild:
    """`folder`: where it is. The other fields are as in Program."""

    folder: Path
    name: str
    program_digest: str
    tensors: tuple[QuantizedTensor, ...]

    @property
    def shared_library(self) -> Path:
        return self.folder / f"lib{self.name}.so"

    @property
    def static_library(self) -> Path:
        return self.folder / f"lib{self.name}.a"

    @property
    def header(self) -> Path:
        return self.folder / f"{self.name}.h"

    @staticmethod
    def of(program: Program, folder: Path) -> DebugBuild:
        """What the debug build of `program` in `folder` is."""
        return DebugBuild(folder, program.name, program.digest, program.tensors)

    def save(self) -> None:
        """Write `folder`/taps.json, the numbers of a tensor in one line."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "program_digest": self.program_digest,
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }
        text = json.dumps(values, indent=1)
        lines = re.sub(r"\[[-+.\deE,\s]*\]", lambda match: " ".join(match[0].split()), text)
        (self.folder / FILE_NAME).write_text(lines + "\n")

    @staticmethod
    def load(folder: Path) -> DebugBuild:
        """Read `folder`/taps.json; raises DeployError if it is missing, damaged or of another
        schema version."""
        path = folder / FILE_NAME
        try:
            values = json.loads(path.read_bytes())
            version = values["schema_version"]
            if version != SCHEMA_VERSION:
                raise DeployError(
                    f"`{path}` has schema version `{version}`, expected `{SCHEMA_VERSION}`",
                    hint=_HINT,
                )
            tensors = tuple(QuantizedTensor.of(entry) for entry in values["tensors"])
            return DebugBuild(folder, values["name"], values["program_digest"], tensors)
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=_HINT) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DeployError(f"`{path}` is damaged", hint=_HINT) from error
