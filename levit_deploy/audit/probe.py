"""Look inside an 8-bit artifact: every quantized tensor against the float reference.

image -> debug build of the artifact's program           a: stored bytes, times the scale
      -> float32 model in ONNX Runtime, streams scaled   r
      -> 8-bit model in ONNX Runtime, as it is written   m, rounded as the table says
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.tapped_program import TappedProgram
from levit_deploy.audit.tapped_tensor import layer_name, tapped_tensors
from levit_deploy.audit.tensor_sums import Float64, sums_of
from levit_deploy.calibration.quantize import quantize, with_streams
from levit_deploy.calibration.rounding import activation_steps
from levit_deploy.calibration.statistics import tapped_session
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.export.exported import INPUT_NAME, ExportedModel
from levit_deploy.machines.machine import Machine
from levit_deploy.models.images import normalize
from levit_deploy.runtime.artifact import DebugBuild
from levit_deploy.targets.toolchain import Toolchain
from levit_deploy.verify.comparison import Logits


class LayerProbe:
    """A context manager; `probe` inside of the block.

    `build`: the debug build; `exported`: the float32 model of the same weights; `table`: the
    artifact's; `toolchain`: for the artifact's target; `machines`: what runs its programs, the
    next one if a board is lost. Raises DeployError if these do not belong together.
    """

    def __init__(
        self,
        build: DebugBuild,
        exported: ExportedModel,
        table: CalibrationTable,
        toolchain: Toolchain,
        *machines: Machine,
    ) -> None:
        self._compiled = build.taps.tensors
        self._normalization = exported.normalization
        streamed = with_streams(exported, table)
        self.tensors = tapped_tensors(build.taps.tensors, streamed, table)
        self._names = [tensor.name for tensor in self.tensors]
        quantized = quantize(exported, table)
        self._reference = tapped_session(streamed.graph, self._names)
        self._model = tapped_session(quantized.graph, self._names, as_written=True)
        self._table = {reader: entry for entry in table.tensors for reader in entry.readers}
        self._program = TappedProgram(build, exported.classes, toolchain, *machines)

    def probe(self, pixels: NDArray[np.uint8]) -> tuple[Logits, Float64]:
        """One picture (size, size, channels) -> the debug build's logits (classes,) and the sums of
        its tensors, (tensors, FIELDS), logits last.

        Raises RunError if the debug build fails.
        """
        image = normalize(pixels[None], self._normalization)
        logits, stored = self._program.run(image[0])
        inputs = {INPUT_NAME: image}
        *references, reference_logits = self._reference.run(self._names, inputs)
        *models, model_logits = self._model.run(self._names, inputs)
        rows = []
        for index, (reference, model) in enumerate(zip(references, models, strict=True)):
            compiled, tensor = self._compiled[index], self.tensors[index]
            entry = self._table[layer_name(compiled.readers[0])]
            factors = np.array(entry.factors or 1.0, np.float64)
            wanted = _as_rows(reference) * factors
            steps = (stored[index].astype(np.float64) - compiled.zero) / compiled.inverse_scales
            rounded = activation_steps(_as_rows(model) * factors, entry.scale, entry.zero_point)
            rows.append(sums_of(wanted, steps * factors, rounded * entry.scale, tensor))
        r, a, m = map(_as_rows, (reference_logits, logits, model_logits))
        rows.append(sums_of(r, a, m, self.tensors[-1]))
        return logits, np.stack(rows)

    def __enter__(self) -> Self:
        self._program.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._program.__exit__(*error)


def _as_rows(tensor: NDArray[np.float32]) -> Float64:
    return tensor.reshape(-1, tensor.shape[-1]).astype(np.float64)
