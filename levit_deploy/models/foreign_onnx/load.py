"""An ONNX file of another tool -> Checkpoint: read by structure, then held against the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint, checkpoint_of
from levit_deploy.models.foreign_onnx.expressions import Graph
from levit_deploy.models.foreign_onnx.model import ForeignModel
from levit_deploy.models.foreign_onnx.read_tensors import read_tensors
from levit_deploy.models.images import normalize
from levit_deploy.models.key_names import Origin
from levit_deploy.models.pictures import package_pictures
from levit_deploy.models.rounding_cost import evaluate, rounding_bound, share_of_range
from levit_deploy.models.side_files import SideFiles
from levit_deploy.models.spec import ModelSpec
from levit_deploy.models.state_dicts import StateDict

_IMAGES = 4  # pictures, and as many of noise


def load_foreign(
    file: Path, beside: SideFiles, spec: ModelSpec | None, *, features: bool = False
) -> Checkpoint:
    """The weights in an ONNX file. `spec`, `features`: as of `load_checkpoint`.

    The result has agreed with the file through ONNX Runtime, on pictures and on noise. Raises
    DeployError, naming the first node that does not fit, if the graph is not read as a LeViT, or if
    what was read computes something else.
    """
    foreign = ForeignModel.load(file)
    reading = read_tensors(Graph(foreign.plain, foreign.image, foreign.output))
    if features and reading.features != foreign.output:
        foreign = foreign.ending_at(reading.features)
    tensors = StateDict("", Origin.ORIGINAL, "", dict(reading.tensors), ())
    checkpoint = checkpoint_of(
        file, tensors, beside, spec, features=features, activation=reading.activation
    )
    card = checkpoint.card.stated("the graph", activation=reading.activation)
    checkpoint = replace(checkpoint.with_card(card), foreign=foreign, digest=foreign.digest)
    difference = _check(checkpoint, foreign)
    note = f"read from the graph; differs from the file in ONNX Runtime by {difference:.1e}"
    return replace(checkpoint, notes=(*checkpoint.notes, f"{note} of the logits' range"))


def _check(checkpoint: Checkpoint, foreign: ForeignModel) -> float:
    """The largest difference in any output, as a share of the range. Raises DeployError if the
    file takes other pictures, or if the difference is above what rounding explains."""
    spec, card = checkpoint.spec, checkpoint.card
    shape = (1, spec.in_chans, spec.image_size, spec.image_size)
    if foreign.shape != shape:
        raise DeployError(
            f"`{foreign.file}` takes {foreign.shape[2]} px, its attention biases are for "
            f"{spec.image_size} px",
            hint="export it at the size that it was trained for",
        )
    net, differences = checkpoint.build(), []
    pictures = package_pictures(card.preprocessing, spec.image_size, _IMAGES, spec.in_chans)
    noise = np.random.default_rng(0).standard_normal((_IMAGES, *shape[1:]), dtype=np.float32)
    for images in (normalize(pictures, card.normalization), noise):
        expected = foreign.logits(images)
        got = evaluate(net, images)
        same = expected.shape == got.shape
        difference = share_of_range(expected, got) if same else float("inf")
        if not difference <= (bound := rounding_bound(net, images)):
            raise DeployError(
                f"the LeViT that was read from `{foreign.file}` differs from it by "
                f"`{difference:.1e}` of the logits' range; rounding explains {bound:.1e}",
                hint="pass the weights that it was exported from: --weights CHECKPOINT",
            )
        differences.append(difference)
    return max(differences)
