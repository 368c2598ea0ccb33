"""What an audit's figures depend on, written down before the first image.

Work that was interrupted goes on only under the same settings, and only shards of the same are
merged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from levit_deploy.errors import DeployError
from levit_deploy.verify.audit.result import RunnerName
from levit_deploy.verify.audit.tapped_tensor import TappedTensor

SCHEMA_VERSION = 1
CHUNK_IMAGES = 64


@dataclass(frozen=True)
class Settings:
    """`images`: how many, broken ones included; CHUNK_IMAGES of them at a time make a chunk.

    `class_names`: empty if they are not known. `listing_digest`: of the images' names and labels.
    `runners`: who classifies them. `layer_step`: at every so many images the artifact's insides are
    looked at; 0 for none. `tensors`: what is looked at; empty if nothing is.
    """

    artifact: str
    model: str
    precision: str
    target: str
    build_id: str
    weights_digest: str
    emulated: bool
    classes: int
    class_names: tuple[str, ...]
    images: int
    labelled: bool
    source: str
    preprocessing: str
    listing_digest: str
    skip_broken: bool
    runners: tuple[RunnerName, ...]
    layer_step: int
    tensors: tuple[TappedTensor, ...]

    @property
    def chunks(self) -> int:
        return -(-self.images // CHUNK_IMAGES)

    def positions(self, chunk: int) -> range:
        """Which images are in a chunk."""
        return range(chunk * CHUNK_IMAGES, min((chunk + 1) * CHUNK_IMAGES, self.images))

    def difference(self, other: Settings) -> str | None:
        """In words, the first thing in which `other` differs; None if nothing does."""
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours != theirs:
                values = f" is `{ours}`, not `{theirs}`" if isinstance(ours, str | int) else ""
                return f"{field.name.replace('_', ' ')}{values}"
        return None

    def to_text(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def load(path: Path) -> Settings:
        """Read what `to_text` gave; raises DeployError if it is damaged or of another version."""
        hint = "begin anew: levit-deploy audit ... --force"
        try:
            values = json.loads(path.read_text())
            version = values.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise DeployError(
                    f"`{path}` has schema version `{version}`, expected `{SCHEMA_VERSION}`",
                    hint=hint,
                )
            runners = tuple(map(RunnerName, values.pop("runners")))
            tensors = tuple(map(_tensor, values.pop("tensors")))
            names = tuple(values.pop("class_names"))
            return Settings(**values, class_names=names, runners=runners, tensors=tensors)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeployError(f"cannot read `{path}`: {error}", hint=hint) from error


@dataclass(frozen=True)
class Shard:
    """The part `number` of `count`, from 1: every `count`-th chunk."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """`2/8` -> Shard(2, 8); raises DeployError for anything else."""
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal():
            shard = Shard(int(number), int(count))
            if 1 <= shard.number <= shard.count:
                return shard
        raise DeployError(f"`{text}` is no shard", hint="--shard 1/8 to --shard 8/8")

    def chunks(self, settings: Settings) -> Sequence[int]:
        return range(self.number - 1, settings.chunks, self.count)


WHOLE = Shard(1, 1)


def _tensor(values: dict[str, Any]) -> TappedTensor:
    readers, makers = tuple(values.pop("readers")), tuple(values.pop("makers"))
    return TappedTensor(**values, readers=readers, makers=makers)
