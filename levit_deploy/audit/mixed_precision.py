"""A set of layers in float32 -> how near the model then is to the float one, measured.

ONNX Runtime runs the 8-bit model without the layers' 8-bit forms, on a few hundred images. What
was measured once lies in a file and is not measured again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from levit_deploy.audit.neighbours import same_neighbours
from levit_deploy.audit.result import Output, RunnerName
from levit_deploy.audit.statistics import Int64, as_classes, sqnr_db
from levit_deploy.calibration.keep_float import kept_float
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.table import CalibrationTable
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.files import write_files
from levit_deploy.models.images import normalize
from levit_deploy.records import load_record, to_json
from levit_deploy.verify.comparison import Logits

_OTHER_CACHE = "choose another cache: XDG_CACHE_HOME=DIR"


@dataclass(frozen=True)
class Nearness:
    """Logits of a mixed model against those of the float one, over `images` images.

    `agreeing`: images with the same answer (see `Fidelity`). `lost` and `won`: those that only one
    of the two gets right, without labels those whose answer differs and 0.
    """

    SCHEMA_VERSION: ClassVar[int] = 2  # another number makes all be measured anew

    images: int
    signal_energy: float
    error_energy: float
    agreeing: int
    lost: int
    won: int

    @property
    def sqnr_db(self) -> float | None:
        return sqnr_db(self.signal_energy, self.error_energy)

    @property
    def agreement(self) -> float:
        return self.agreeing / self.images

    @property
    def drop_points(self) -> float:
        """Of the top-1; without labels the most that it can be."""
        return 100 * (self.lost - self.won) / self.images


class MixedPrecision:
    """`exported`: the float32 model; `table`: how it became 8 bits.

    `pixels`: uint8 (images, size, size, channels). `labels`: (images,), or None. `cache`: a
    folder for what was measured, made by `keep` if there is none.
    """

    def __init__(
        self,
        exported: ExportedModel,
        table: CalibrationTable,
        pixels: NDArray[np.uint8],
        labels: Int64 | None,
        cache: Path,
    ) -> None:
        self.exported, self.table = exported, table
        self.layers = table.quantized_layers
        self._pixels, self._labels, self._cache = pixels, labels, cache

    def measure(self, float_layers: Set[str]) -> Nearness:
        """Of the model in which these layers are float32 too, by name; what is known is not
        measured."""
        known = self.known(float_layers)
        return known or self.keep(float_layers, self.nearness(float_layers))

    def known(self, float_layers: Set[str]) -> Nearness | None:
        """What was measured before; None if nothing was."""
        try:
            return load_record(Nearness, self._file(float_layers), hint=_OTHER_CACHE)
        except DeployError:
            return None

    def keep(self, float_layers: Set[str], nearness: Nearness) -> Nearness:
        """The same, which is `known` from now on."""
        path = self._file(float_layers)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: to_json(nearness).encode()}, hint=_OTHER_CACHE)
        return nearness

    def nearness(self, float_layers: Set[str]) -> Nearness:
        """Measured, and not kept; several threads may do so at once."""
        mixed = quantize(self.exported, table_without(self.exported, self.table, float_layers))
        expected, got = self._expected, self._logits(mixed)
        r, a = expected.astype(np.float64), got.astype(np.float64)
        agreeing, lost, won = self._answers(expected, got)
        return Nearness(
            images=len(r),
            signal_energy=float((r * r).sum()),
            error_energy=float(((a - r) ** 2).sum()),
            agreeing=agreeing,
            lost=lost,
            won=won,
        )

    def _answers(self, expected: Logits, got: Logits) -> tuple[int, int, int]:
        """(the same answers, those that are lost, those that are won)."""
        output = Output.of(self.exported.card, self.exported.classes)
        if output is Output.FEATURES:
            features = {RunnerName.REFERENCE: expected, RunnerName.QDQ: got}
            pair = RunnerName.QDQ, RunnerName.REFERENCE
            same = same_neighbours(features, [pair])[pair]
            return same, len(got) - same, 0
        wanted, found = (as_classes(rows, output).argmax(axis=1) for rows in (expected, got))
        labels = wanted if self._labels is None else self._labels
        lost = (wanted == labels) & (found != labels)
        won = (found == labels) & (wanted != labels)
        return int((wanted == found).sum()), int(lost.sum()), int(won.sum())

    @cached_property
    def _expected(self) -> Logits:
        return self._logits(self.exported)

    def _logits(self, model: ExportedModel) -> Logits:
        """With constants folded, but each 8-bit value made and read as the model says.

        ONNX Runtime's own 8-bit kernels would measure something else.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(
            model.graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        images = (normalize(picture[None], model.normalization) for picture in self._pixels)
        return np.concatenate(
            [session.run([OUTPUT_NAME], {INPUT_NAME: image})[0] for image in images]
        )

    def _file(self, float_layers: Set[str]) -> Path:
        digest = hashlib.sha256(self._subject)
        digest.update("\n".join(sorted(float_layers)).encode())
        return self._cache / f"{digest.hexdigest()}.json"

    @cached_property
    def _subject(self) -> bytes:
        """A digest of all but the layers."""
        labels = b"" if self._labels is None else self._labels.tobytes()
        content = onnxruntime.__version__ + to_json(self.table)
        parts = (content.encode(), self._pixels.tobytes(), labels)
        return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).digest()


def table_without(
    exported: ExportedModel, table: CalibrationTable, float_layers: Set[str]
) -> CalibrationTable:
    """The same decisions, but for layers that now keep float32 weights and activations."""
    names = tuple(layer for layer in table.quantized_layers if layer in float_layers)
    recipe = replace(table.recipe, float_layers=(*table.recipe.float_layers, *names))
    reading = (
        replace(tensor, readers=tuple(r for r in tensor.readers if r not in float_layers))
        for tensor in table.tensors
    )
    return replace(
        table,
        recipe=recipe,
        stem=tuple(layer for layer in table.stem if layer.layer not in float_layers),
        tensors=tuple(tensor for tensor in reading if tensor.readers),
        layers=tuple(layer for layer in table.layers if layer.layer not in float_layers),
        kept_float=tuple(kept_float(exported.network, recipe)),
    )
