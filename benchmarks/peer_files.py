"""Networks with random weights, in the files that the peers of `benchmarks.peers` run.

LeViT is the reference module, EfficientNet timm's. Weights and statistics are random and agree
with each other, so no activation is near zero, which would be slow. What 8-bit forms are calibrated
on is noise: latency does not depend on it. Some files take minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime.quantization as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import get_spec
from tests.models.libraries import timm_module
from tests.randomize import randomize

IMAGES = 8  # to calibrate on
SETTLING = 4  # batches of noise that make the statistics of the BatchNorms


@dataclass(frozen=True)
class Net:
    """`name` as its library has it; square pictures of `size`, `batch` a call."""

    name: str
    size: int
    batch: int = 1

    def file(self, work: Path, kind: str) -> Path:
        return work / f"{self.name}-{self.batch}-{kind}"

    def noise(self) -> Iterator[NDArray[np.float32]]:
        rng = np.random.default_rng(0)
        for _ in range(IMAGES):
            yield rng.standard_normal((self.batch, 3, self.size, self.size), dtype=np.float32)


@cache
def module(name: str, size: int) -> nn.Module:
    """Random weights and the statistics that they give on noise; ready for inference."""
    torch.manual_seed(0)
    levit = name.startswith("levit")
    net = randomize(Levit(get_spec(name)) if levit else timm_module("timm").create_model(name), 0)
    for part in net.modules():
        if isinstance(part, _BatchNorm):
            part.reset_running_stats()
            part.momentum = None
            part.train()
    with torch.no_grad():
        for _ in range(SETTLING):
            net(torch.randn(4, 3, size, size))
    return net.eval()


def example(net: Net) -> tuple[torch.Tensor]:
    return (torch.from_numpy(next(net.noise())),)


def calibrate(net: Net, run: Callable[[torch.Tensor], object]) -> None:
    for image in net.noise():
        run(torch.from_numpy(image))


def onnx(net: Net, work: Path, file: Path) -> None:
    torch.onnx.export(
        module(net.name, net.size),
        example(net),
        file,
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )


def onnx_prepared(net: Net, work: Path, file: Path) -> None:
    quant_pre_process(made(net, "fp32.onnx", work), file, skip_symbolic_shape=True)


def onnx_dynamic(net: Net, work: Path, file: Path) -> None:
    """Matrix products alone: 8-bit convolutions with steps of their own for each image are slow."""
    model = made(net, "prepared.onnx", work)
    ort.quantize_dynamic(model, file, op_types_to_quantize=["MatMul"], per_channel=True)


class _Noise(ort.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, net: Net) -> None:
        self._images = net.noise()

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def onnx_static(form: ort.QuantFormat, activations: ort.QuantType) -> Maker:
    def make(net: Net, work: Path, file: Path) -> None:
        ort.quantize_static(
            made(net, "prepared.onnx", work),
            file,
            _Noise(net),
            quant_format=form,
            per_channel=True,
            activation_type=activations,
            weight_type=ort.QuantType.QInt8,
        )

    return make


def nncf(net: Net, work: Path, file: Path) -> None:
    import nncf
    import openvino

    images = list(net.noise())
    transformer = nncf.ModelType.TRANSFORMER if net.name.startswith("levit") else None
    model = openvino.Core().read_model(made(net, "fp32.onnx", work))
    dataset = nncf.Dataset(images)
    quantized = nncf.quantize(model, dataset, model_type=transformer, subset_size=IMAGES)
    openvino.save_model(quantized, file)


def tflite(net: Net, work: Path, file: Path) -> None:
    import litert_torch

    litert_torch.convert(module(net.name, net.size), example(net)).export(str(file))


def tflite_dynamic(net: Net, work: Path, file: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    model = quantizer.Quantizer(str(made(net, "fp32.tflite", work)))
    model.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    model.quantize().export_model(str(file), overwrite=True)


def tflite_static(net: Net, work: Path, file: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    model = quantizer.Quantizer(str(made(net, "fp32.tflite", work)))
    model.load_quantization_recipe(recipe.static_wi8_ai8())
    seen = model.calibrate({"serving_default": [{"args_0": image} for image in net.noise()]})
    model.quantize(seen).export_model(str(file), overwrite=True)


def pte(net: Net, work: Path, file: Path) -> None:
    _save_pte(torch.export.export(module(net.name, net.size), example(net)), file)


def pte_static(net: Net, work: Path, file: Path) -> None:
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = xnnpack_quantizer.XNNPACKQuantizer()
    config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    quantizer.set_global(config)
    program = torch.export.export(module(net.name, net.size), example(net))
    watched = prepare_pt2e(program.module(), quantizer)
    calibrate(net, watched)
    _save_pte(torch.export.export(convert_pt2e(watched), example(net)), file)


def _save_pte(program: torch.export.ExportedProgram, file: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    file.write_bytes(lowered.to_executorch().buffer)


Maker = Callable[[Net, Path, Path], None]
MAKERS: dict[str, Maker] = {
    "fp32.onnx": onnx,
    "prepared.onnx": onnx_prepared,
    "dynamic.onnx": onnx_dynamic,
    "qdq.onnx": onnx_static(ort.QuantFormat.QDQ, ort.QuantType.QUInt8),
    "qoperator.onnx": onnx_static(ort.QuantFormat.QOperator, ort.QuantType.QUInt8),
    "int8.xml": nncf,
    "fp32.tflite": tflite,
    "dynamic.tflite": tflite_dynamic,
    "int8.tflite": tflite_static,
    "fp32.pte": pte,
    "int8.pte": pte_static,
}


def made(net: Net, kind: str, work: Path) -> Path:
    """The file of this kind: made, if it is not there."""
    file = net.file(work, kind)
    if not file.exists():
        MAKERS[kind](net, work, file)
    return file
