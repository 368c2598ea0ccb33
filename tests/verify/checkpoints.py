"""Checkpoints that no file holds."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from levit_deploy.models.checkpoint import Checkpoint, weights_digest
from levit_deploy.models.preprocessing import Preprocessing


def resized_as(checkpoint: Checkpoint, way: Preprocessing) -> Checkpoint:
    """The same network, of which another preprocessing is said."""
    return checkpoint.with_card(checkpoint.card.stated("a test", preprocessing=way))


def with_state(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> Checkpoint:
    """The same network with other weights, which are copied."""
    state = {name: tensors[name].clone() for name in checkpoint.state}
    return replace(checkpoint, state=state, digest=weights_digest(state))
