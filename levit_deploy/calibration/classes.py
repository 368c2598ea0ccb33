"""Folders of classes -> the model's class indices.

the model has labels, and every folder is one of them    by name
every folder is a synset of ImageNet-1k, and its classes
are the model's: 1000, without labels or with its words   by synset
else, as many folders as classes                         by index, in the order of the card
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from levit_deploy.calibration.pictures import Pictures
from levit_deploy.errors import DeployError
from levit_deploy.models.card import ClassOrder, ModelCard
from levit_deploy.models.imagenet import imagenet_classes
from levit_deploy.models.key_names import Origin

SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_ORDER_OPTION = "--class-order"


def number_classes(source: str, pictures: Pictures, card: ModelCard, classes: int) -> None:
    """Give pictures in folders of classes the labels of the model, and the classes its names.

    Raises DeployError if folders are parts of a set, if some are not of the model, or if their
    order is not known: 10 comes before or after 2.
    """
    folders = pictures.class_names
    if pictures.labels is None or not folders:
        return
    if set(map(str.lower, folders)) <= SPLITS:
        raise DeployError(
            f"`{source}` has folders of parts, not of classes: {', '.join(folders)}",
            hint=f"name one of them: --data {source.rstrip('/')}/{folders[-1]}",
        )
    by_name = None
    if card.sources["class_order"] != _ORDER_OPTION:
        by_name = _by_name(card, folders) or _by_synset(card, folders, classes)
    if by_name is not None:
        numbers, names = by_name, card.labels or tuple(imagenet_classes().values())
    else:
        names = _in_order(source, card, folders, classes)
        numbers = [names.index(folder) for folder in folders]
        names = card.labels or names
    pictures.labels = np.array(numbers, np.int64)[pictures.labels]
    pictures.class_names = tuple(names)


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Sorts 10 behind 2, without regard to case, as timm's readers do."""
    parts = re.split(r"(\d+)", name.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _by_name(card: ModelCard, folders: Sequence[str]) -> list[int] | None:
    """The label of each folder; None unless every folder is exactly one label."""
    numbers: dict[str, set[int]] = {}
    for number, label in enumerate(card.labels):
        for name in _names(label):
            numbers.setdefault(name, set()).add(number)
    found = [numbers.get(_plain(folder), set()) for folder in folders]
    unique = [number for each in found if len(each) == 1 for number in each]
    return unique if len(set(unique)) == len(folders) else None


def _by_synset(card: ModelCard, folders: Sequence[str], classes: int) -> list[int] | None:
    """The class of each folder; None unless all are ImageNet-1k's, in a model of its classes."""
    words = imagenet_classes()
    if classes != len(words) or not set(folders) <= words.keys():
        return None
    order = list(words)
    numbers = [order.index(folder) for folder in folders]
    same = all(
        set(_names(words[folder])) & set(_names(card.labels[number]))
        for folder, number in zip(folders, numbers, strict=True)
        if card.labels
    )
    return numbers if same else None


def _names(label: str) -> Iterable[str]:
    """What a label calls its class: the whole, and each of several names with commas between."""
    return {_plain(name) for name in (label, *label.split(","))}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _in_order(
    source: str, card: ModelCard, folders: Sequence[str], classes: int
) -> tuple[str, ...]:
    """The folders in the order of the model's classes."""
    strange = [folder for folder in folders if _by_name(card, [folder]) is None]
    if card.labels and len(strange) < len(folders) and card.sources["class_order"] != _ORDER_OPTION:
        raise DeployError(
            f"`{source}` has folders that are none of the model's labels: "
            f"{', '.join(strange[:3]) or 'two of one label'}",
            hint=f"rename them, or number the folders by their order: {_ORDER_OPTION} string",
        )
    if len(folders) != classes:
        raise DeployError(
            f"`{source}` has folders for {len(folders)} classes, the model has {classes}",
            hint="one folder a class, empty ones too, or named as the model's labels (--labels); "
            "without labels: all images in one folder",
        )
    string, natural = sorted(folders), sorted(folders, key=natural_key)
    # timm's networks are trained with torchvision's readers as well; the others' with their own.
    if string != natural and card.origin is Origin.TIMM and "class_order" in card.assumed:
        pairs = enumerate(zip(string, natural, strict=True))
        first = next(number for number, pair in pairs if pair[0] != pair[1])
        raise DeployError(
            f"class {first} of `{source}` is `{string[first]}` in the order of torchvision and "
            f"transformers, `{natural[first]}` in timm's, and nothing says which the model has",
            hint=f"say it: {_ORDER_OPTION} string, or {_ORDER_OPTION} natural",
        )
    return tuple(natural if card.class_order is ClassOrder.NATURAL else string)
