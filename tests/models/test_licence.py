"""The licence of the weights: what is beside them says it, or nobody does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import metadata_save

from levit_deploy.models.card import default_card
from levit_deploy.models.key_names import Origin
from levit_deploy.models.side_files import SideFiles
from levit_deploy.models.spec import TINY


def licence_beside(folder: Path) -> tuple[str, str]:
    card = default_card(Origin.TIMM, TINY)
    card = SideFiles.beside(folder, {}, Origin.TIMM).state(card, TINY)
    return card.licence, card.sources["licence"]


@pytest.mark.parametrize(
    ("matter", "licence"),
    [
        ({"license": "cc-by-nc-4.0", "tags": ["timm"]}, "cc-by-nc-4.0"),
        ({"tags": ["license: mit"], "license": "other", "license_name": "ours"}, "ours"),
        ({"license": "other"}, "other"),
    ],
)
def test_a_model_card_of_the_hub(tmp_path: Path, matter: dict, licence: str) -> None:
    (tmp_path / "README.md").write_text("# A model\n\nlicense: in the text, it says nothing\n")
    metadata_save(tmp_path / "README.md", matter)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"license": "mit"}}))
    assert licence_beside(tmp_path) == (licence, "README.md")


def test_timms_configuration(tmp_path: Path) -> None:
    config = {"architecture": "levit_128s", "pretrained_cfg": {"license": "apache-2.0"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert licence_beside(tmp_path) == ("apache-2.0", "config.json")


@pytest.mark.parametrize(
    "text",
    [
        *("", "license: mit", "---\nlicense: mit", "---\n---\nlicense: mit\n---\n"),
        *("---\nlicense:\n---\n", "---\nlicense: \n  - mit\n---\n", "\0" * 100_000),
    ],
)
def test_else_it_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licence_beside(tmp_path) == ("", "nobody")
    assert "licence unknown  from nobody" in default_card(Origin.TIMM, TINY).describe()


def test_control_characters_and_endless_names(tmp_path: Path) -> None:
    name = "\x1b[31m" + "x" * 1000
    (tmp_path / "README.md").write_bytes(f"---\r\nlicense: '{name}'\r\n---\r\n".encode())
    licence, _ = licence_beside(tmp_path)
    assert licence.isprintable()
    assert len(licence) == 100
