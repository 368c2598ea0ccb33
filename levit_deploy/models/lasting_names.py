"""The values of --weights and --data, as they can be kept: from any folder, without secrets."""

from __future__ import annotations

import os

from levit_deploy.models.weights import DEMO, OFFICIAL
from levit_deploy.urls import public

_TAGS = (DEMO, OFFICIAL)
_SCHEMES = ("http://", "https://")
_HIDDEN = "?..."  # how a URL ends of which `public` left out what may be needed


def lasting_name(source: str) -> str:
    """A tag as it is, a URL without user, query and fragment, or an absolute path."""
    if source in _TAGS:
        return source
    return public(source) if is_url(source) else os.path.abspath(source)


def is_url(source: str) -> bool:
    return source.startswith(_SCHEMES)


def can_be_found(name: str) -> bool:
    """Whether there is a file of this lasting name, or it is a tag or a whole URL."""
    if is_url(name):
        return not name.endswith(_HIDDEN)
    return name in _TAGS or os.path.exists(name)
