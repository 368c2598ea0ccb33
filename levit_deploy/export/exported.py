"""ExportedModel: the portable form of a model; everything after it is machine-specific.

One ONNX file holds it all: the graph, and in `metadata_props` what the graph cannot say.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from levit_deploy.errors import DeployError
from levit_deploy.export.read_network import read_network
from levit_deploy.files import open_regular, write_files
from levit_deploy.models.card import ModelCard
from levit_deploy.models.checkpoint_files import onnx_file
from levit_deploy.models.spec import Normalization
from levit_deploy.network.network import IMAGE, LOGITS, Network, Precision
from levit_deploy.records import from_plain, parse_json, to_json

SCHEMA_VERSION = 3
INPUT_NAME = IMAGE
OUTPUT_NAME = LOGITS

MAX_BYTES = (1 << 31) - 1  # as many as protobuf reads
_KEY = "levit_deploy."
_MAKE_ONE = "make one with `levit-deploy export levit_128s -o levit_128s.onnx`"


@dataclass(frozen=True)
class ExportedModel:
    """A folded, simplified ONNX graph and its description.

    `graph`: opset 17 (21 with 16-bit integers), static batch 1, input `image` (1, channels, size,
    size) float32 NCHW, normalised RGB or grey, output `logits` (1, classes) float32.
    `card`: what the checkpoint's owner knows of its inputs and outputs.
    `weights_digest`: canonical SHA-256 of the checkpoint it came from, hexadecimal.
    """

    name: str
    graph: onnx.ModelProto
    card: ModelCard
    weights_digest: str

    @property
    def normalization(self) -> Normalization:
        """Of the card: what is done to 8-bit values before the network."""
        return self.card.normalization

    @cached_property
    def network(self) -> Network:
        """What the graph says, for the compiler and the quantizer.

        Raises DeployError, naming the first node that does not fit, if it is no LeViT.
        """
        return read_network(self.graph)

    @property
    def precision(self) -> Precision:
        return self.network.precision

    @property
    def image_size(self) -> int:
        return self.network.image_size

    @property
    def classes(self) -> int:
        """Values that one image gives: logits, or features where the network has no head."""
        return self.network.outputs

    def save(self, path: Path) -> None:
        """Write `to_bytes` as one file, whole or not at all.

        Raises DeployError if it cannot be written.
        """
        write_files({path: self.to_bytes()})

    def to_bytes(self) -> bytes:
        """An ONNX file's content; the description goes to its `metadata_props`."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        onnx.helper.set_model_props(
            model,
            {
                _KEY + "schema_version": str(SCHEMA_VERSION),
                _KEY + "name": self.name,
                _KEY + "card": to_json(self.card),
                _KEY + "weights_digest": self.weights_digest,
            },
        )
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    @staticmethod
    def load(path: Path) -> ExportedModel:
        """Read a file that `save` wrote.

        Raises DeployError if the file is not such a model or is of another schema version.
        """
        try:
            with open_regular(path) as file:
                graph = onnx.load_model_from_string(file.read(MAX_BYTES))
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=_MAKE_ONE) from error
        except Exception as error:  # protobuf's DecodeError, which onnx does not export
            raise DeployError(f"`{path}` is not an ONNX model", hint=_MAKE_ONE) from error
        props = {p.key: p.value for p in graph.metadata_props}
        version = props.get(_KEY + "schema_version")
        if version is None:
            raise DeployError(
                f"`{path}` was not exported by levit-deploy",
                hint=f"pass it as weights: --weights {shlex.quote(str(path))}",
            )
        if version != str(SCHEMA_VERSION):
            raise DeployError(
                f"`{path}` has schema version `{version}`, expected `{SCHEMA_VERSION}`",
                hint="export the model again with this version of levit-deploy",
            )
        del graph.metadata_props[:]
        try:
            return ExportedModel(
                name=_identifier(props[_KEY + "name"]),
                graph=graph,
                card=from_plain(
                    ModelCard,
                    parse_json(props[_KEY + "card"].encode(), str(path), hint=_MAKE_ONE),
                    str(path),
                    hint=_MAKE_ONE,
                ),
                weights_digest=props[_KEY + "weights_digest"],
            )
        except (KeyError, ValueError, IndexError) as error:
            raise DeployError(f"the description in `{path}` is damaged", hint=_MAKE_ONE) from error


def is_exported(path: Path) -> bool:
    """Whether it is a file that `save` wrote, of any schema version."""
    if onnx_file(path) != path:
        return False
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # any kind: the content is not ours
        return False
    return any(prop.key.startswith(_KEY) for prop in model.metadata_props)


def _identifier(name: str) -> str:
    if not (name.isascii() and name.isidentifier()):
        raise ValueError(f"{name!r} is no name of a model")
    return name
