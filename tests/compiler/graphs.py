"""What ONNX Runtime says about a model, and images to ask it about."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from levit_deploy.export.exported import INPUT_NAME, ExportedModel

Array = NDArray[np.float32]


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
