"""Which class of the model a folder is: by name, else by order, else by asking."""

from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.calibration.classes import natural_key, number_classes
from levit_deploy.calibration.pictures import ArrayPictures
from levit_deploy.errors import DeployError
from levit_deploy.models.card import ClassOrder, ModelCard, default_card, with_class_order
from levit_deploy.models.imagenet import imagenet_classes
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import TINY
from tests.models.libraries import timm_module

NUMBERS = tuple(str(number) for number in range(1, 11))


def card(origin: Origin, labels: tuple[str, ...] = ()) -> ModelCard:
    return replace(default_card(origin, TINY), labels=labels)


def numbered(
    card: ModelCard, folders: tuple[str, ...], classes: int | None = None
) -> dict[str, int]:
    """The class that the picture of each folder gets, folders in the order of a directory."""
    ordered = sorted(folders)
    images = np.zeros((len(ordered), 4, 4, 3), np.uint8)
    pictures = ArrayPictures(images, np.arange(len(ordered)), tuple(ordered))
    number_classes("data", pictures, card, classes or len(folders))
    assert pictures.labels is not None
    return dict(zip(ordered, pictures.labels.tolist(), strict=True))


def test_folders_are_matched_to_labels_by_name():
    labels = ("tench, Tinca tinca", "great white shark", "Siamese_cat", "n01440764")
    folders = ("Siamese cat", "n01440764", "Tinca tinca", "great-white-shark")
    got = numbered(card(Origin.TRANSFORMERS, labels), folders)
    assert got == dict(zip(folders, (2, 3, 0, 1), strict=True))


def test_a_part_of_the_classes_is_enough_where_names_tell():
    assert numbered(card(Origin.TIMM, ("zebra", "ape", "newt")), ("newt", "zebra"), 3) == {
        "newt": 2, "zebra": 0,
    }  # fmt: skip


def test_a_folder_that_is_no_label_is_named():
    with pytest.raises(DeployError, match="none of the model's labels: dog"):
        numbered(card(Origin.TIMM, ("ape", "cat")), ("cat", "dog"))


def test_a_name_of_two_labels_does_not_decide():
    """ImageNet has two cranes."""
    labels = ("crane, bird", "crane, machine")
    with pytest.raises(DeployError, match="none of the model's labels: crane"):
        numbered(card(Origin.TIMM, labels), ("crane", "machine"))


SYNSETS = ("n02012849", "n01440764", "n03126707", "n15075141")  # two of them are cranes
PLACES = dict(zip(SYNSETS, (134, 0, 517, 999), strict=True))


def test_synsets_are_timms_in_order_and_words():
    info = timm_module("timm.data").ImageNetInfo("imagenet-1k")
    ours = imagenet_classes()
    assert list(ours) == info.label_names()
    assert list(ours.values()) == [info.label_name_to_description(name) for name in ours]


@pytest.mark.parametrize("labelled", [False, True])
def test_folders_of_synsets_are_imagenets_classes(labelled: bool):
    labels = tuple(words.split(",")[-1] for words in imagenet_classes().values())
    assert numbered(card(Origin.TIMM, labels if labelled else ()), SYNSETS, 1000) == PLACES


def test_synsets_of_other_classes_do_not_decide():
    other = tuple(reversed(imagenet_classes().values()))
    for labels, classes in ((other, 1000), ((), 999)):
        with pytest.raises(DeployError, match="has folders for 4 classes"):
            numbered(card(Origin.TIMM, labels), SYNSETS, classes)


@pytest.mark.parametrize("origin", [Origin.ORIGINAL, Origin.TRANSFORMERS])
def test_order_of_strings(origin: Origin):
    got = numbered(card(origin), NUMBERS)
    assert [got[name] for name in ("1", "10", "2", "9")] == [0, 1, 2, 9]


def test_timms_order_is_asked_for_where_it_matters():
    with pytest.raises(DeployError, match=r"class 1 of `data` is `10` .* `2` in timm's") as caught:
        numbered(card(Origin.TIMM), NUMBERS)
    assert caught.value.hint == "say it: --class-order string, or --class-order natural"
    assert numbered(card(Origin.TIMM), ("a", "b", "c")) == {"a": 0, "b": 1, "c": 2}
    natural = with_class_order(card(Origin.TIMM), ClassOrder.NATURAL)
    assert numbered(natural, NUMBERS)["10"] == 9
    string = with_class_order(card(Origin.TIMM), ClassOrder.STRING)
    assert numbered(string, NUMBERS)["10"] == 1


def test_the_option_goes_before_names():
    labels = with_class_order(card(Origin.TIMM, ("b", "a")), ClassOrder.STRING)
    assert numbered(labels, ("a", "b")) == {"a": 0, "b": 1}


def test_natural_order_is_timms():
    theirs = timm_module("timm.data.readers.reader_image_folder").natural_key
    names = [*NUMBERS, "a10b2", "a9", "A10", "b", "10a", "x1y10", "x1y9", "Z"]
    assert sorted(names, key=natural_key) == sorted(names, key=theirs)


def test_parts_of_a_set_are_not_classes():
    with pytest.raises(DeployError, match="folders of parts, not of classes: train, val") as caught:
        numbered(card(Origin.TIMM), ("train", "val"))
    assert caught.value.hint == "name one of them: --data data/val"


def test_another_number_of_folders_than_classes():
    with pytest.raises(DeployError, match="folders for 2 classes, the model has 3"):
        numbered(card(Origin.TIMM), ("a", "b"), 3)
