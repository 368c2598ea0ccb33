"""The ways to 8 and 16 bits that `benchmarks.quantization` compares: network -> classifier.

All of them see the same exported network and the same calibration images. Ours is the compiled
library for this machine, or its 8-bit model in ONNX Runtime with optimisations off. The others run
as they are meant to: ONNX Runtime's static quantization, after its own pre-processing, in its own
kernels; NNCF's in OpenVINO (`pip install nncf openvino`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization as ort
from onnxruntime.quantization.shape_inference import quant_pre_process

from levit_deploy.calibration.image_set import ImageSet
from levit_deploy.calibration.quantize_model import quantize_from_moments, quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES, Recipe
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.export.export_model import with_half
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.images import normalize
from levit_deploy.network.moments import trained_moments
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import HOST, get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.expectation import Reference
from levit_deploy.verify.verification import reference_self_test

CHUNK = 32  # calibration images whose activations ONNX Runtime holds at once

LIBRARY = f"levit-deploy {DEFAULT_RECIPE.name}"
MODEL = f"{LIBRARY}, its 8-bit model in ONNX Runtime"
WITHOUT_PICTURES = f"{LIBRARY} without pictures"

Floats = NDArray[np.float32]
Classify = Callable[[Floats], Floats]  # image (1, 3, size, size) -> logits (1, classes)


@dataclass(frozen=True, eq=False)
class Network:
    """A float network, what may be calibrated on, and a folder for what methods share.

    The folder is kept as long as classifiers made of the network are in use.
    """

    checkpoint: Checkpoint
    exported: ExportedModel
    pictures: ImageSet
    folder: Path

    def calibration(self) -> Iterator[Floats]:
        for picture in self.pictures:
            yield normalize(picture[None], self.exported.normalization)

    def onnx_file(self) -> Path:
        file = self.folder / "fp32.onnx"
        if not file.exists():
            self.exported.save(file)
        return file


@cache
def quantized(network: Network, recipe: Recipe) -> ExportedModel:
    return quantize_model(network.exported, network.pictures, recipe)[0]


def without_pictures(network: Network) -> ExportedModel:
    moments = trained_moments(network.checkpoint.build())
    return quantize_from_moments(network.exported, moments, DEFAULT_RECIPE)[0]


def our_library(
    name: str, quantizer: Callable[[Network], ExportedModel]
) -> Callable[[Network], Classify]:
    def prepare(network: Network) -> Classify:
        model, target = quantizer(network), get_target(HOST)
        artifact = build_artifact(
            compile_model(model, target),
            find_toolchain(target),
            reference_self_test(Reference.of_weights(network.checkpoint, model)),
            network.folder / name,
        )
        library = Library(artifact.shared_library)
        library.self_test()
        return lambda image: library.run(image)[None]

    return prepare


def our_recipe(recipe: Recipe) -> Callable[[Network], Classify]:
    return our_library(recipe.name, lambda network: quantized(network, recipe))


def our_model(network: Network) -> Classify:
    return _session(
        quantized(network, DEFAULT_RECIPE).graph.SerializeToString(),
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    )


def onnxruntime_static(types: str, calibration: str) -> Callable[[Network], Classify]:
    """`types`: of activations and weights, such as u8s8."""

    def prepare(network: Network) -> Classify:
        target = network.folder / "onnxruntime.onnx"
        quantize_onnxruntime(network, types, calibration, ort.QuantFormat.QDQ, target)
        return _session(target.read_bytes(), onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)

    return prepare


def quantize_onnxruntime(
    network: Network, types: str, calibration: str, form: ort.QuantFormat, target: Path
) -> None:
    """Write the network in 8 bits as ONNX Runtime does it; weights per output channel."""
    kinds = {"u8": ort.QuantType.QUInt8, "s8": ort.QuantType.QInt8}
    methods = {
        "min-max": ort.CalibrationMethod.MinMax,
        "percentile": ort.CalibrationMethod.Percentile,
        "entropy": ort.CalibrationMethod.Entropy,
    }
    prepared = network.folder / "prepared.onnx"
    if not prepared.exists():
        quant_pre_process(network.onnx_file(), prepared, skip_symbolic_shape=True)
    ort.quantize_static(
        prepared,
        target,
        _Reader(network),
        quant_format=form,
        per_channel=True,
        activation_type=kinds[types[:2]],
        weight_type=kinds[types[2:]],
        calibrate_method=methods[calibration],
        extra_options={"CalibStridedMinMax": CHUNK},
        calibration_cache_path=network.folder / f"{calibration}.json",
    )


class _Reader(ort.CalibrationDataReader):  # type: ignore[misc]
    """ONNX Runtime's way to ask for the images, which it does in ranges."""

    def __init__(self, network: Network) -> None:
        self._images, self._count = network.calibration, len(network.pictures)
        self._next: Iterator[Floats] = iter(())

    def __len__(self) -> int:
        return self._count

    def get_next(self) -> dict[str, Floats] | None:
        image = next(self._next, None)
        return None if image is None else {INPUT_NAME: image}

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(list(self._images())[start_index:end_index])


def nncf_ptq(transformer: bool) -> Callable[[Network], Classify]:
    def prepare(network: Network) -> Classify:
        import nncf
        import openvino

        images = list(network.calibration())
        model = nncf.quantize(
            openvino.Core().read_model(network.onnx_file()),
            nncf.Dataset(images),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(model, "CPU", config)
        return lambda image: next(iter(compiled([image]).values()))

    return prepare


def _session(model: bytes, level: onnxruntime.GraphOptimizationLevel) -> Classify:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    runtime = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: runtime.run([OUTPUT_NAME], {INPUT_NAME: image})[0]


OURS: dict[str, Callable[[Network], Classify]] = {
    LIBRARY: our_recipe(DEFAULT_RECIPE),
    WITHOUT_PICTURES: our_library("none", without_pictures),
    MODEL: our_model,
    **{
        f"levit-deploy {format}": our_library(
            format, lambda network, format=format: with_half(network.exported, format)
        )
        for format in HalfFormat
    },
}
PEERS: dict[str, Callable[[Network], Classify]] = {
    "NNCF default": nncf_ptq(transformer=False),
    "NNCF transformer": nncf_ptq(transformer=True),
    **{
        f"ONNX Runtime {types} {calibration}": onnxruntime_static(types, calibration)
        for calibration in ("min-max", "percentile", "entropy")
        for types in ("u8s8", "u8u8", "s8s8")
    },
}
OTHER_RECIPES: dict[str, Callable[[Network], Classify]] = {
    f"levit-deploy --recipe {name}": our_recipe(recipe)
    for name, recipe in RECIPES.items()
    if recipe is not DEFAULT_RECIPE
}
METHODS = {**OURS, **PEERS, **OTHER_RECIPES}
