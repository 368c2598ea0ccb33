"""ONNX graphs that are not LeViT, as ExportedModels, and what ONNX Runtime says about a graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel, Precision
from levit_deploy.models.spec import IMAGENET

Array = NDArray[np.float32]


def exported(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.generic]], size: int, classes: int
) -> ExportedModel:
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [1, classes])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return ExportedModel(
        "foreign", model, Precision.FP32, size, classes, IMAGENET, weights_digest="00" * 32
    )


def gelu_mlp() -> ExportedModel:
    """Two linear layers with GELU, which LeViT does not have, between them."""
    rng = np.random.default_rng(1)
    node = helper.make_node
    nodes = [
        node("Flatten", [INPUT_NAME], ["x"]),
        node("Gemm", ["x", "w1", "b1"], ["h"]),
        node("Mul", ["h", "root_half"], ["e0"]),
        node("Erf", ["e0"], ["e1"]),
        node("Add", ["e1", "one"], ["e2"]),
        node("Mul", ["h", "e2"], ["e3"]),
        node("Mul", ["e3", "half"], ["g"]),
        node("Gemm", ["g", "w2", "b2"], [OUTPUT_NAME]),
    ]
    weights = {
        "w1": _normal(rng, 192, 40) / np.float32(14),
        "b1": _normal(rng, 40),
        "w2": _normal(rng, 40, 7),
        "b2": _normal(rng, 7),
        "root_half": np.float32(0.5**0.5),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }
    return exported(nodes, weights, size=8, classes=7)


def stride_one_conv() -> ExportedModel:
    """A convolution of stride 1, whose padded input is a large local array, and pooling."""
    rng = np.random.default_rng(2)
    node = helper.make_node
    nodes = [
        node("Conv", [INPUT_NAME, "w1", "b1"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w2", "b2"], [OUTPUT_NAME]),
    ]
    weights = {
        "w1": _normal(rng, 8, 3, 3, 3),
        "b1": _normal(rng, 8),
        "w2": _normal(rng, 8, 5),
        "b2": _normal(rng, 5),
    }
    return exported(nodes, weights, size=24, classes=5)


def two_readers() -> ExportedModel:
    """The image and the logits are each used twice: a branch joins, the output feeds a branch."""
    rng = np.random.default_rng(3)
    node = helper.make_node
    nodes = [
        node("Flatten", [INPUT_NAME], ["x"]),
        node("Gemm", ["x", "w1"], ["a"]),
        node("Tanh", [INPUT_NAME], ["t"]),
        node("ReduceMean", ["t"], ["m"], axes=[1, 2, 3], keepdims=0),
        node("Softmax", ["a"], ["s"]),
        node("Mul", ["s", "m"], [OUTPUT_NAME]),
    ]
    return exported(nodes, {"w1": _normal(rng, 192, 6)}, size=8, classes=6)


FOREIGN = {make.__name__: make for make in (gelu_mlp, stride_one_conv, two_readers)}


def reference(model: ExportedModel, image: Array) -> Array:
    """ONNX Runtime's logits without its graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.graph.SerializeToString(), options)
    return np.asarray(session.run(None, {INPUT_NAME: image})[0][0], np.float32)


def random_image(model: ExportedModel, seed: int = 0) -> Array:
    shape = (1, 3, model.image_size, model.image_size)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_rgb8(model: ExportedModel, seed: int = 0) -> tuple[NDArray[np.uint8], Array]:
    """An 8-bit HWC image and the float NCHW image that it stands for."""
    shape = (model.image_size, model.image_size, 3)
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    mean, std = np.array(model.normalization.mean), np.array(model.normalization.std)
    normalised = ((image / 255 - mean) / std).transpose(2, 0, 1)[None]
    return image, np.ascontiguousarray(normalised, np.float32)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)
