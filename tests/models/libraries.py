"""timm and transformers, which we did not write, as references: their models for our specs."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from levit_deploy.models.spec import FAMILY, ModelSpec


def timm_model(spec: ModelSpec, *, conv: bool) -> nn.Module:
    """timm's levit_* (linear layers) or levit_conv_* (1x1 convolutions), fresh."""
    with _torchvision_or_stand_in():
        timm = importlib.import_module("timm")
        levit = importlib.import_module("timm.models.levit")
    shape = {"img_size": spec.image_size, "num_classes": spec.classes}
    if spec.name in FAMILY:
        name = spec.name.replace("levit_", "levit_conv_") if conv else spec.name
        return timm.create_model(name, distilled=spec.distilled, **shape)
    cls = levit.LevitDistilled if spec.distilled else levit.Levit
    return cls(
        embed_dim=spec.channels,
        key_dim=spec.key_dim,
        num_heads=spec.heads,
        depth=spec.depths,
        use_conv=conv,
        **shape,
    )


class TransformersLogits(nn.Module):
    """A transformers model whose output is the logits alone; `inner` saves and loads itself."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        return self.inner(image).logits


def transformers_model(spec: ModelSpec) -> TransformersLogits:
    """LevitForImageClassification, ...WithTeacher if the spec is distilled, fresh."""
    transformers = importlib.import_module("transformers")
    config = transformers.LevitConfig(
        image_size=spec.image_size,
        hidden_sizes=list(spec.channels),
        num_attention_heads=list(spec.heads),
        depths=list(spec.depths),
        key_dim=[spec.key_dim] * 3,
        num_labels=spec.classes,
    )
    suffix = "WithTeacher" if spec.distilled else ""
    return TransformersLogits(getattr(transformers, f"LevitForImageClassification{suffix}")(config))


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyAttribute(name, (), {})


class _StandIn(types.ModuleType):
    """A module that has a class of any name."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyAttribute(name, (), {})


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@contextmanager
def _torchvision_or_stand_in() -> Iterator[None]:
    """timm imports torchvision for its data sets; the wheel does not fit the CPU build of torch.

    Where torchvision is missing, a stand-in serves while timm is imported, and then goes.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    finder = _Torchvision()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
