"""What an artifact must compute: whose logits count, and how close is right.

fp32    PyTorch, or where there are no weights ONNX Runtime on the exported model; close
int8    ONNX Runtime on the 8-bit model as it is written, within steps
fp16, bf16    the same of the 16-bit model, within what its roundings make of it

How close, and how many steps, is measured on the images that are compared; see tolerance.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.foreign_onnx.model import ForeignModel
from levit_deploy.models.preprocessing import Preprocessing
from levit_deploy.models.reference import Levit
from levit_deploy.models.rounding_cost import rounding_cost
from levit_deploy.models.spec import Normalization
from levit_deploy.network.network import Precision
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images
from levit_deploy.verify.moved_roundings import moved_cost
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.reference_runner import reference_runner
from levit_deploy.verify.tolerance import BF16, CLOSE, FP16, MOVED, STEPS, Tolerance

# Of a model: what it is called, and how close a library of it is.
_CLASSES = {
    Precision.FP32: ("exported", MOVED),
    Precision.FP16: ("16-bit", FP16),
    Precision.BF16: ("16-bit", BF16),
    Precision.INT8: ("8-bit", STEPS),
}


@dataclass(frozen=True)
class Reference:
    """What a library is held against.

    `net`: the trained network, if its weights are at hand. `model`: what the library was compiled
    from, if that is at hand; it counts where it is not fp32 or there is no `net`. `foreign`: the
    file that the weights were read from, where that counts in the place of `net`.
    `weights_digest`: canonical SHA-256 of the weights behind both, hexadecimal.
    """

    weights_digest: str
    image_size: int
    normalization: Normalization
    preprocessing: Preprocessing
    net: Levit | None = None
    model: ExportedModel | None = None
    foreign: ForeignModel | None = None

    @staticmethod
    def of_weights(checkpoint: Checkpoint, rounded: ExportedModel | None = None) -> Reference:
        """`rounded`: the model of fewer bits that was made of them, if the library is its."""
        spec = checkpoint.spec
        return Reference(
            checkpoint.digest,
            spec.image_size,
            spec.normalization,
            checkpoint.preprocessing,
            checkpoint.build(),
            rounded,
            checkpoint.foreign,
        )

    @staticmethod
    def of_model(exported: ExportedModel) -> Reference:
        """The exported model itself, where its weights are not at hand."""
        return Reference(
            exported.weights_digest,
            exported.image_size,
            exported.normalization,
            exported.card.preprocessing,
            model=exported,
        )


@dataclass(frozen=True)
class Expectation:
    """`reference` made `logits`; `float_logits` are the trained network's, if another made
    `logits`."""

    reference: str
    logits: Logits
    tolerance: Tolerance
    float_logits: Logits | None = None

    def agreement(self, logits: Logits) -> str:
        """For people: on how many images `logits` have float32's top-1, unless that is compared."""
        if self.float_logits is None:
            return ""
        same = int((logits.argmax(axis=1) == self.float_logits.argmax(axis=1)).sum())
        return f"; float32's top-1 on {same} of {len(logits)}"


def expect(reference: Reference, precision: str, images: Images) -> Expectation:
    """For a library of `precision`. Raises DeployError if that is not known."""
    net = reference.net
    truth = None if net is None else reference_runner(net, reference.foreign)
    floats = None if truth is None else truth.infer(images)
    if precision == Precision.FP32 and net and truth and floats is not None:
        tolerance = CLOSE.of(rounding_cost(net, images.floats))
        return Expectation(truth.name, floats, tolerance)
    model = reference.model
    if model is None or model.precision != precision:
        raise DeployError(
            f"what the {precision} library must compute is in the model that it was compiled from, "
            "or in its calibration table; both are missing",
            hint="name the .onnx file that it was compiled from, or compile the model again",
        )
    bits, tolerance_class = _CLASSES[model.precision]
    with OnnxRunner(model, as_written=True) as runner:
        logits = runner.infer(images)
    cost = moved_cost(model, images, logits)
    return Expectation(f"{bits} model in ONNX Runtime", logits, tolerance_class.of(cost), floats)
