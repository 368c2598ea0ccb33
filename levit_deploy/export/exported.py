"""ExportedModel: the portable form of a model; everything after it is machine-specific.

One ONNX file holds it all: the graph, and in `metadata_props` what the graph cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import onnx

from levit_deploy.errors import DeployError
from levit_deploy.models.spec import Normalization as Normalization

SCHEMA_VERSION = 1
INPUT_NAME = "image"
OUTPUT_NAME = "logits"


class Precision(StrEnum):
    FP32 = "fp32"
    INT8 = "int8"


@dataclass(frozen=True)
class ExportedModel:
    """A folded, simplified ONNX graph and its description.

    `graph`: opset 17, static batch 1, input `image` (1, 3, size, size) float32 NCHW normalised RGB,
    output `logits` (1, classes) float32.
    `weights_digest`: canonical SHA-256 of the checkpoint it came from, hexadecimal.
    """

    name: str
    graph: onnx.ModelProto
    precision: Precision
    image_size: int
    classes: int
    normalization: Normalization
    weights_digest: str

    def save(self, path: Path) -> None:
        """Write one ONNX file; the description goes to its `metadata_props`."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        del model.metadata_props[:]
        onnx.helper.set_model_props(
            model,
            {
                "levit_deploy.schema_version": str(SCHEMA_VERSION),
                "levit_deploy.name": self.name,
                "levit_deploy.precision": self.precision.value,
                "levit_deploy.mean": " ".join(repr(v) for v in self.normalization.mean),
                "levit_deploy.std": " ".join(repr(v) for v in self.normalization.std),
                "levit_deploy.weights_digest": self.weights_digest,
            },
        )
        path.write_bytes(model.SerializeToString(deterministic=True))

    @staticmethod
    def load(path: Path) -> ExportedModel:
        """Read a file that `save` wrote.

        Raises DeployError if the file is not such a model or is of another schema version.
        """
        try:
            graph = onnx.load_model_from_string(path.read_bytes())
        except Exception as error:
            raise DeployError(
                f"`{path}` is not an ONNX model",
                hint="make one with `levit-deploy export levit_128s -o levit_128s.onnx`",
            ) from error
        props = {p.key: p.value for p in graph.metadata_props}
        version = props.get("levit_deploy.schema_version")
        if version != str(SCHEMA_VERSION):
            raise DeployError(
                f"`{path}` has schema version `{version}`, expected `{SCHEMA_VERSION}`",
                hint="export the model again with this version of levit-deploy",
            )
        size = graph.graph.input[0].type.tensor_type.shape.dim[3].dim_value
        classes = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value

        def triple(key: str) -> tuple[float, float, float]:
            r, g, b = (float(v) for v in props[key].split())
            return r, g, b

        return ExportedModel(
            name=props["levit_deploy.name"],
            graph=graph,
            precision=Precision(props["levit_deploy.precision"]),
            image_size=size,
            classes=classes,
            normalization=Normalization(triple("levit_deploy.mean"), triple("levit_deploy.std")),
            weights_digest=props["levit_deploy.weights_digest"],
        )
