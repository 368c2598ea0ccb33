"""An ONNX file of another tool: what it computes, and its nodes without what only moves shapes."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from levit_deploy.errors import DeployError

LOGITS = "logits"  # of several outputs, the one that is taken; else the first
_EXPORT_HINT = "export it with one picture of a fixed size as its only input, in float32"


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """`image`: its input, float32 NCHW of shape (1, channels, size, size). `output`: the tensor
    that is taken: logits (1, classes), or features. `digest`: SHA-256 of the file and the tensors
    that it keeps beside it, and of another output, hexadecimal."""

    file: str
    proto: onnx.ModelProto
    image: str
    shape: tuple[int, int, int, int]
    output: str
    digest: str

    @staticmethod
    def load(path: Path) -> ForeignModel:
        """Raises DeployError if it is no ONNX file, or not of one picture of a fixed size."""
        try:
            proto = onnx.load(path)
            digest = hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
            onnx.checker.check_model(proto)
        except Exception as error:  # any kind: the content is not ours
            raise DeployError(
                f"`{path}` is damaged, or tensors that it keeps beside it are not there",
                hint="export or download it again, with its .data file",
            ) from error
        if any(prop.key.startswith("levit_deploy.") for prop in proto.metadata_props):
            raise DeployError(
                f"`{path}` was written by levit-deploy, and is compiled as it is",
                hint=f"levit-deploy compile --target host {shlex.quote(str(path))}",
            )
        constants = {tensor.name for tensor in proto.graph.initializer}
        inputs = [port for port in proto.graph.input if port.name not in constants]
        kind = inputs[0].type.tensor_type if inputs else None
        sides = [dim.dim_value for dim in kind.shape.dim] if kind else []
        fixed = len(sides) == 4 and min(sides[1:]) > 0 and sides[2] == sides[3] and sides[0] <= 1
        if len(inputs) != 1 or not fixed or not kind or kind.elem_type != onnx.TensorProto.FLOAT:
            taken = " x ".join(str(side or "?") for side in sides)
            raise DeployError(
                f"`{path}` takes {len(inputs)} inputs, the first of `{taken or 'no'}` values, "
                "not one square picture",
                hint=_EXPORT_HINT,
            )
        outputs = [port.name for port in proto.graph.output]
        output = LOGITS if LOGITS in outputs else outputs[0]
        shape = (1, sides[1], sides[2], sides[3])
        return ForeignModel(str(path), proto, inputs[0].name, shape, output, digest)

    @cached_property
    def plain(self) -> onnx.ModelProto:
        """The same with every constant computed and every shape known, else as it is.

        Raises DeployError if onnxsim cannot do that.
        """
        import onnxsim  # slow to import, and only for files like these

        try:
            simple, _ = onnxsim.simplify(
                self.proto,
                overwrite_input_shapes={self.image: list(self.shape)},
                perform_optimization=False,
            )
        except Exception as error:  # any kind: the content is not ours
            raise DeployError(
                f"`{self.file}` cannot be simplified: {error}", hint=_EXPORT_HINT
            ) from error
        plain: onnx.ModelProto = simple
        return plain

    def ending_at(self, tensor: str) -> ForeignModel:
        """The same file as far as another of its tensors in `plain`."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.plain)
        del proto.graph.output[:]
        proto.graph.output.append(onnx.ValueInfoProto(name=tensor))
        digest = hashlib.sha256(f"{self.digest} {tensor}".encode()).hexdigest()
        return replace(self, proto=proto, output=tensor, digest=digest)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """images: (n, channels, size, size), normalised -> (n, classes), by ONNX Runtime.

        Raises DeployError if it refuses the file.
        """
        try:
            rows = [self._session.run([self.output], {self.image: one[None]})[0] for one in images]
        except Exception as error:  # any kind: the content is not ours
            raise DeployError(
                f"ONNX Runtime does not run `{self.file}`: {error}", hint=_EXPORT_HINT
            ) from error
        return np.concatenate(rows).reshape(len(images), -1)
