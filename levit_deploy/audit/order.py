"""An audit in names and settings: what a process elsewhere needs to do a part of it.

It reads the same files by the same names, and must come to the same settings. What it opened it
keeps, so that the next part begins at once, until it is released or the process ends.
"""

from __future__ import annotations

import atexit
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from levit_deploy.audit.audit_artifact import Auditor, open_probe
from levit_deploy.audit.chunk import Chunk
from levit_deploy.audit.images import open_audit_images
from levit_deploy.audit.mixed_precision import Nearness
from levit_deploy.audit.settings import Settings
from levit_deploy.errors import DeployError
from levit_deploy.models.resize import for_image_size
from levit_deploy.models.spec import ModelSpec
from levit_deploy.models.weights import load_weights
from levit_deploy.runtime.artifact import open_artifact


@dataclass(frozen=True)
class Order:
    """`artifact`: its folder. `spec`, `weights`, `sha256`, `key`, `offline`: as `load_weights`
    takes them; `data`, `images`: as `open_audit_images`. Paths are absolute. `token`: of this
    audit alone."""

    settings: Settings
    artifact: Path
    spec: ModelSpec | None
    weights: str
    sha256: str | None
    key: str | None
    offline: bool
    data: str
    images: int | None
    layer_images: int
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @contextmanager
    def open(self) -> Iterator[Auditor]:
        """Raises DeployError if what is found here is missing, or not what `settings` are of."""
        with open_artifact(self.artifact) as artifact, ExitStack() as stack:
            manifest = artifact.manifest
            checkpoint = load_weights(
                self.spec,
                self.weights,
                sha256=self.sha256,
                key=self.key,
                features=manifest.card.heads == 0,
                offline=self.offline,
            )
            if manifest.image_size != checkpoint.spec.image_size:
                checkpoint = for_image_size(checkpoint, manifest.image_size)
            checkpoint = checkpoint.with_card(self.settings.card)
            skip_broken, source = self.settings.skip_broken, self.settings.source
            opened = open_audit_images(
                self.data, checkpoint, skip_broken=skip_broken, maximum=self.images
            )
            images = replace(opened, source=source)
            probe = None
            if self.layer_images:
                probe = stack.enter_context(open_probe(artifact, checkpoint))
            auditor = Auditor(artifact, checkpoint, images, probe, self.layer_images)
            if difference := auditor.settings.difference(self.settings):
                raise DeployError(
                    f"a worker of the cluster finds other files or another CPU: {difference}",
                    hint="give all workers the same files, and CPUs that run the artifact alike",
                )
            yield stack.enter_context(auditor)


_opened: dict[str, tuple[Auditor, ExitStack]] = {}  # by token
_opening = threading.Lock()


def chunk_of(order: Order, number: int) -> Chunk:
    """One chunk, made in this process; raises DeployError as `Order.open` and `Auditor.chunk`."""
    return _auditor(order).chunk(number)


def nearness_of(order: Order, float_layers: frozenset[str]) -> Nearness:
    """One mixed model, measured in this process; raises DeployError as `Order.open`."""
    return _auditor(order).nearness(float_layers)


def release(token: str) -> None:
    """Have what this process opened for an audit dropped, if anything, as soon as it is open."""
    threading.Thread(target=_close, args=(token,)).start()


def _close(token: str) -> None:
    with _opening:
        if token in _opened:
            _opened.pop(token)[1].close()


def _auditor(order: Order) -> Auditor:
    with _opening:
        if order.token not in _opened:
            with ExitStack() as stack:
                auditor = stack.enter_context(order.open())
                _opened[order.token] = auditor, stack.pop_all()
            atexit.register(_close, order.token)
        return _opened[order.token][0]
