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


def timm_module(name: str) -> Any:
    """A module of timm by its dotted name."""
    with _torchvision_or_stand_in():
        return importlib.import_module(name)


def timm_model(spec: ModelSpec, *, conv: bool) -> nn.Module:
    """timm's levit_* (linear layers) or levit_conv_* (1x1 convolutions), fresh."""
    shape = {
        "img_size": spec.image_size,
        "num_classes": spec.classes,
        "in_chans": spec.in_chans,
        "act_layer": spec.activation.value,
    }
    published = FAMILY.get(spec.name)
    if published and published.distilled is spec.distilled:
        name = spec.name.replace("levit_", "levit_conv_") if conv else spec.name
        return timm_module("timm").create_model(name, **shape)
    levit = timm_module("timm.models.levit")
    cls = levit.LevitDistilled if spec.distilled else levit.Levit
    return cls(
        embed_dim=spec.channels,
        key_dim=spec.key_dim,
        num_heads=spec.heads,
        depth=spec.depths,
        use_conv=conv,
        stem_type=f"s{spec.stem_stride}",
        **shape,
    )


class TransformersLogits(nn.Module):
    """A transformers model whose output is the logits, or the pooled features, alone.

    `inner` saves and loads itself.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        output = self.inner(image)
        return output.logits if "logits" in output else output.pooler_output


def transformers_config(spec: ModelSpec, **changes: object) -> Any:
    """A LevitConfig of the spec's sizes, with changes."""
    sizes = {
        "image_size": spec.image_size,
        "num_channels": spec.in_chans,
        "hidden_sizes": list(spec.channels),
        "num_attention_heads": list(spec.heads),
        "depths": list(spec.depths),
        "key_dim": [spec.key_dim] * len(spec.depths),
        "num_labels": spec.classes,
    }
    return importlib.import_module("transformers").LevitConfig(**{**sizes, **changes})


def transformers_model(spec: ModelSpec, config: Any = None) -> TransformersLogits:
    """LevitModel, LevitForImageClassification or ...WithTeacher, as the spec's heads say, fresh."""
    transformers = importlib.import_module("transformers")
    suffix = "WithTeacher" if spec.distilled else ""
    name = f"LevitForImageClassification{suffix}" if spec.classes else "LevitModel"
    return TransformersLogits(getattr(transformers, name)(config or transformers_config(spec)))


def transformers_processor(**values: object) -> Any:
    """transformers' own LevitImageProcessor, by Pillow."""
    module = importlib.import_module("transformers.models.levit.image_processing_pil_levit")
    return module.LevitImageProcessorPil(**values)


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
