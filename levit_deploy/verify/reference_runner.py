"""What gives the logits that count: the reference module, or the ONNX file of the weights."""

from __future__ import annotations

from levit_deploy.models.foreign_onnx.model import ForeignModel
from levit_deploy.models.reference import Levit
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images
from levit_deploy.verify.runner import Runner
from levit_deploy.verify.torch_runner import TorchRunner


class ForeignRunner(Runner):
    """An ONNX file of another tool, one image at a time."""

    name = "the ONNX file in ONNX Runtime"

    def __init__(self, model: ForeignModel) -> None:
        self._model = model

    def infer(self, images: Images) -> Logits:
        return self._model.logits(images.floats)


def reference_runner(net: Levit, foreign: ForeignModel | None) -> Runner:
    """`foreign`: the file that the weights of `net` were read from, if that is one. The runner has
    nothing to prepare."""
    return TorchRunner(net) if foreign is None else ForeignRunner(foreign)
