"""What an artifact must compute: whose logits count, and how close is right.

fp32    PyTorch, close
int8    ONNX Runtime on its 8-bit model as it is written, within steps
"""

from __future__ import annotations

from dataclasses import dataclass

from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.network.network import Precision
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.tolerance import CLOSE, STEPS, Tolerance
from levit_deploy.verify.torch_runner import TorchRunner


@dataclass(frozen=True)
class Expectation:
    """`reference` made `logits`; `float_logits` are PyTorch's."""

    reference: str
    logits: Logits
    float_logits: Logits
    tolerance: Tolerance

    def agreement(self, logits: Logits) -> str:
        """For people: on how many images `logits` have PyTorch's top-1, unless it is compared."""
        if self.tolerance is not STEPS:
            return ""
        same = int((logits.argmax(axis=1) == self.float_logits.argmax(axis=1)).sum())
        return f"; PyTorch's top-1 on {same} of {len(logits)}"


def expect(
    checkpoint: Checkpoint, precision: str, quantized: ExportedModel | None, images: Images
) -> Expectation:
    """For a library of `precision` made of `checkpoint`, in 8 bits by way of `quantized`.

    Raises DeployError if that is not known.
    """
    logits = TorchRunner(checkpoint.build()).infer(images)
    if precision == Precision.FP32:
        return Expectation(TorchRunner.name, logits, logits, CLOSE)
    if quantized is None:
        raise DeployError(
            "what an 8-bit library must compute is in its calibration table, which is missing",
            hint="compile the model again",
        )
    with OnnxRunner(quantized, as_written=True) as runner:
        return Expectation("8-bit model in ONNX Runtime", runner.infer(images), logits, STEPS)
