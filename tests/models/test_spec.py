"""The family table and the errors of a wrong name or size."""

from dataclasses import replace

import pytest

from levit_deploy.errors import DeployError
from levit_deploy.models.spec import FAMILY, TINY, get_spec


def test_derived_sizes_of_levit_128s() -> None:
    spec = get_spec("levit_128s")
    assert spec.stem_channels == (16, 32, 64, 128)
    assert spec.grids == (14, 7, 4)
    assert spec.shrink_heads == (8, 16)
    assert (spec.value_dim, spec.shrink_value_dim) == (32, 64)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("levit_128x", "levit_128"),
        ("LeViT-192", "levit_192"),
        ("levit265", "levit_256"),
        ("timm/levit_384.fb_dist_in1k", "levit_384"),
        ("facebook/levit-128S", "levit_128s"),
    ],
)
def test_unknown_model_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(DeployError, match=f"unknown model `{name}`") as caught:
        get_spec(name)
    assert caught.value.hint is not None
    assert suggestion in caught.value.hint


@pytest.mark.parametrize("name", ["resnet50", "levit_640", "android", ""])
def test_unknown_model_far_from_any_lists_all(name: str) -> None:
    with pytest.raises(DeployError) as caught:
        get_spec(name)
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in FAMILY)


@pytest.mark.parametrize(("size", "nearest"), [(225, "224"), (1, "16"), (0, "16"), (-16, "16")])
def test_impossible_image_size_names_the_nearest(size: int, nearest: str) -> None:
    with pytest.raises(DeployError, match=f"image size `{size}`") as caught:
        replace(TINY, image_size=size)
    assert caught.value.hint is not None
    assert nearest in caught.value.hint


def test_impossible_ends() -> None:
    with pytest.raises(DeployError, match="`-1` classes"):
        replace(TINY, classes=-1)
    with pytest.raises(DeployError, match="`0` channels"):
        replace(TINY, in_chans=0)


def test_timms_other_forms_are_the_same_networks() -> None:
    assert get_spec("levit_conv_512_s8") is get_spec("levit_512_s8") is FAMILY["levit_512_s8"]
