"""URLs are shown without what they keep secret."""

import pytest

from levit_deploy.urls import public


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a/w.pth", "https://host/a/w.pth"),
        ("https://host/w.pth?token=s3cret", "https://host/w.pth?..."),
        ("https://user:s3cret@host:80/w.pth#s3cret", "https://host:80/w.pth"),
        ("HTTP://s3cret@host", "HTTP://host"),
        ("https://host?s3cret", "https://host?..."),
        ("--weights=https://u:s3cret@host/w?s3cret", "--weights=https://host/w?..."),
        ("a@b", "a@b"),
    ],
)
def test_public(text: str, shown: str) -> None:
    assert public(text) == shown
