"""Files beside the weights, or arguments in their own file -> the model's card.

config.json                 timm: preprocessing, activation, labels; transformers: labels
preprocessor_config.json    transformers' preprocessing, whoever wrote the weights
README.md                   the licence, in the front matter of a Hugging Face model card
a training checkpoint       timm's arguments
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from levit_deploy.files import open_regular
from levit_deploy.models import timm_config, transformers_config
from levit_deploy.models.card import ModelCard, with_labels
from levit_deploy.models.checkpoint_files import side_folder
from levit_deploy.models.config import Config
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import Activation, ModelSpec
from levit_deploy.records import printable

_MODEL_CARD = "README.md"
_LONGEST_MATTER_BYTES = 1 << 16
_LONGEST_LICENCE = 100  # characters
_LABELS = ("id2label", "label_names", "labels")  # transformers, timm, timm before 0.9


@dataclass(frozen=True)
class SideFiles:
    """What is beside weights of `origin`; each None if it is not there.

    `licence`: what the model card says, with the card's name.
    """

    origin: Origin
    config: Config | None
    processor: Config | None
    licence: tuple[str, str] | None

    @staticmethod
    def beside(path: Path, content: Mapping[str, object], origin: Origin) -> SideFiles:
        """Read them. Raises DeployError if one is damaged."""
        folder = side_folder(path)
        config = Config.read(folder / "config.json") if folder else None
        processor = Config.read(folder / "preprocessor_config.json") if folder else None
        if config is None and origin is Origin.TIMM:
            config = timm_config.training_config(content, str(path))
        return SideFiles(origin, config, processor, _licence(folder, config))

    @staticmethod
    def beside_onnx(path: Path) -> SideFiles:
        """Read those of a folder with an ONNX file, whose origin they are the only ones to say."""
        found = SideFiles.beside(path, {}, Origin.ONNX)
        said = {"model_type": Origin.TRANSFORMERS, "architecture": Origin.TIMM}
        origins = [o for name, o in said.items() if found.config and found.config.has(name)]
        return replace(found, origin=origins[0]) if origins else found

    def activation(self) -> Activation | None:
        """The one that is named, or that the origin has alone; None if nothing says."""
        if self.origin is Origin.TRANSFORMERS:
            return Activation.HARD_SWISH
        is_timm = self.origin is Origin.TIMM and self.config
        return timm_config.activation(self.config) if is_timm and self.config else None

    def state(self, card: ModelCard, spec: ModelSpec) -> ModelCard:
        """The card with what they say. Raises DeployError for what cannot be followed."""
        if self.licence:
            card = card.stated(self.licence[1], licence=self.licence[0])
        if self.config:
            if self.origin is Origin.TIMM:
                card = timm_config.state_config(card, self.config, spec)
            elif self.origin is Origin.TRANSFORMERS:
                card = transformers_config.state_config(card, self.config, spec)
            card = _with_labels(card, self.config, spec)
        if self.processor and not transformers_config.is_timms(self.processor):
            card = transformers_config.state_processor(card, self.processor)
        return card


def _licence(folder: Path | None, config: Config | None) -> tuple[str, str] | None:
    """That of the model card; else that of timm's `pretrained_cfg`, where timm's own models have
    it. With the name of the file."""
    matter = _front_matter(folder / _MODEL_CARD) if folder else ""
    said = dict(re.findall(r"^(license|license_name): *[\"']?([^\"'#\n]+)", matter, re.MULTILINE))
    name = said.get("license", "").strip()
    if name == "other":
        name = said.get("license_name", name).strip()
    if name:
        return printable(name)[:_LONGEST_LICENCE], _MODEL_CARD
    section = config.section("pretrained_cfg") if config else None
    given = section.values.get("license") if section else None
    if config and isinstance(given, str) and given.strip():
        return printable(given.strip())[:_LONGEST_LICENCE], config.source
    return None


def _front_matter(path: Path) -> str:
    """The lines between the first two `---` of a file; nothing if there are none."""
    try:
        with open_regular(path) as file:
            text = file.read(_LONGEST_MATTER_BYTES).decode(errors="replace")
    except OSError:
        return ""
    match = re.match(r"---\s*\n(.*?)^---\s*$", text.replace("\r\n", "\n"), re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


def _with_labels(card: ModelCard, config: Config, spec: ModelSpec) -> ModelCard:
    for name in _LABELS:
        labels = config.names(name)
        placeholders = [f"LABEL_{number}" for number in range(len(labels or ()))]
        if labels and spec.classes and list(labels) != placeholders:
            return with_labels(card, labels, spec.classes, config.source)
    return card
