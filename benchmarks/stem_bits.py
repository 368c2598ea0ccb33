"""What 8 bits in one convolution of the stem cost: a table of docs/quantization.md.

    python -m benchmarks.stem_bits                  # 3 minutes
    python -m benchmarks.stem_bits --images 1000

The signal-to-noise ratio of the demonstration net's logits, calibrated on the 512 images in the
package, on the first labelled test images, by ONNX Runtime with optimisations off. Weights are
those that the calibration table would have; activations get 0..255 for each channel's range.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.quantization import SPEC, Logits, build_network, float_logits, test_set
from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.quantize import quantize, with_streams
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.calibration.rounding import LEVELS, weight_scales_of_bytes
from levit_deploy.calibration.statistics import (
    TensorStatistics,
    collect_statistics,
    tapped_session,
)
from levit_deploy.export.export_model import with_network
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.models.images import model_input
from levit_deploy.network.network import Conv, Network, map_layers

IMAGES = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="test images")
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        network = build_network(0.0, Path(folder))
    statistics = collect_statistics(network.exported, network.pictures)
    table = choose_scales(network.exported, statistics, network.pictures, DEFAULT_RECIPE)
    exported, model = with_streams(network.exported, table), quantize(network.exported, table)
    bytes_of_model = {conv.name: conv for conv in model.network.stem}
    readers = [(conv, t) for conv, t in exported.network.reading() if isinstance(conv, Conv)][1:]

    print(f"| what is rounded | {' | '.join(conv.name for conv, _ in readers)} |")
    print("|---" * (1 + len(readers)) + "|")

    def row(title: str, models: Iterator[ExportedModel]) -> None:
        ratios = [f"{sqnr_db(logits(changed, count), count):.1f} dB" for changed in models]
        print(f"| {title} | {' | '.join(ratios)} |", flush=True)

    row("weights, nearest", (with_conv(exported, nearest(conv)) for conv, _ in readers))
    row(
        "weights, as calibration rounds them",
        (with_conv(exported, dequantized(bytes_of_model[conv.name])) for conv, _ in readers),
    )
    for title, base in (("activations", exported), ("activations, of the 8-bit model", model)):
        row(title, (with_bytes(base, tensor, statistics[tensor]) for _, tensor in readers))
    print(f"\nThe 8-bit model itself: {sqnr_db(logits(model, count), count):.1f} dB.")


def nearest(conv: Conv) -> Conv:
    scales = weight_scales_of_bytes(conv.weight.astype(np.float64)).reshape(-1, 1, 1, 1)
    return replace(conv, weight=(np.rint(conv.weight / scales) * scales).astype(np.float32))


def dequantized(conv: Conv) -> Conv:
    """An `Int16` convolution's weights as float32."""
    scales = conv.arithmetic.weight_scales.reshape(-1, 1, 1, 1)
    factors = conv.arithmetic.factors.reshape(1, -1, 1, 1)
    return replace(conv, weight=(conv.weight * scales * factors).astype(np.float32))


def with_conv(exported: ExportedModel, other: Conv) -> ExportedModel:
    """The float32 model with the weights of one convolution replaced."""

    def change(conv: Conv) -> Conv:
        return replace(conv, weight=other.weight) if conv.name == other.name else conv

    network: Network = map_layers(exported.network, change, lambda linear: linear)
    return with_network(exported, network)


def with_bytes(exported: ExportedModel, tensor: str, seen: TensorStatistics) -> ExportedModel:
    """The model in which `tensor` (1, channels, y, x) is rounded to 8 bits."""
    low, high = seen.lows.min(axis=0).clip(max=0), seen.highs.max(axis=0).clip(min=0)
    scales = np.maximum((high - low) / LEVELS, np.finfo(np.float32).tiny).astype(np.float32)
    graph = onnx.ModelProto()
    graph.CopyFrom(exported.graph)
    nodes = list(graph.graph.node)
    maker = next(i for i, node in enumerate(nodes) if tensor in node.output)
    for node in nodes:
        node.input[:] = [f"{tensor}.rounded" if name == tensor else name for name in node.input]
    constants = {"scales": scales, "zeros": np.rint(-low / scales).astype(np.uint8)}
    for name, values in constants.items():
        entry = numpy_helper.from_array(values, f"{tensor}.rounded.{name}")
        graph.graph.initializer.append(entry)
    steps = [f"{tensor}.rounded.{name}" for name in constants]
    quantized = f"{tensor}.rounded.bytes"
    nodes[maker + 1 : maker + 1] = [
        onnx.helper.make_node("QuantizeLinear", [tensor, *steps], [quantized], axis=1),
        onnx.helper.make_node(
            "DequantizeLinear", [quantized, *steps], [f"{tensor}.rounded"], axis=1
        ),
    ]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return replace(exported, graph=graph)


def logits(model: ExportedModel, count: int) -> Logits:
    session = tapped_session(model.graph, [OUTPUT_NAME], as_written=True)
    images = (model_input(image[None], SPEC) for image in test_set()[0][:count])
    rows = [session.run([OUTPUT_NAME], {INPUT_NAME: image})[0] for image in images]
    return np.concatenate(rows).astype(np.float64)


def sqnr_db(got: Logits, count: int) -> float:
    expected = float_logits(count)
    return float(10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum()))


if __name__ == "__main__":
    main()
