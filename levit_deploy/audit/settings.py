"""What an audit's figures depend on, written down before the first image.

Work that was interrupted goes on only under the same settings, and only shards of the same are
merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from levit_deploy.audit.result import RunnerName, Subject
from levit_deploy.audit.tapped_tensor import TappedTensor
from levit_deploy.errors import DeployError
from levit_deploy.records import load_record

CHUNK_IMAGES = 64


@dataclass(frozen=True)
class Settings(Subject):
    """`images`: how many, broken ones included; CHUNK_IMAGES of them at a time make a chunk.

    `listing_digest`: of the images' names and labels. `runners`: who classifies them. `layer_step`:
    at every so many images the artifact's insides are looked at; 0 for none. `tensors`: what is
    looked at; empty if nothing is.
    """

    SCHEMA_VERSION: ClassVar[int] = 3

    images: int
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

    @staticmethod
    def load(path: Path) -> Settings:
        """Raises DeployError if they are missing, damaged or of another version."""
        return load_record(Settings, path, hint="begin anew: levit-deploy audit ... --force")


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
