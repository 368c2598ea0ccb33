"""ONNX Runtime on an exported model."""

from __future__ import annotations

import numpy as np
import onnxruntime

from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Images
from levit_deploy.verify.runner import Runner


class OnnxRunner(Runner):
    """The graph of `exported` (batch 1), one thread; `as_written`: no graph optimisations."""

    name = "ONNX Runtime"

    def __init__(self, exported: ExportedModel, *, as_written: bool = False) -> None:
        self._exported = exported
        self._as_written = as_written

    def activate(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if self._as_written:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            self._exported.graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def infer(self, images: Images) -> Logits:
        rows = [
            self._session.run([OUTPUT_NAME], {INPUT_NAME: image[None]})[0]
            for image in images.floats
        ]
        return np.concatenate(rows)

    def deactivate(self) -> None:
        del self._session
