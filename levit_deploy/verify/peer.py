"""Whom an artifact is timed against."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec


class Peer(StrEnum):
    """A contender's kind; the value is the name of the package that must be there for it."""

    ARTIFACT = "levit_deploy"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TORCH = "torch"

    @property
    def installed(self) -> bool:
        return find_spec(self.value) is not None
