"""All groups, in the order in which they may claim operators."""

from __future__ import annotations

from levit_deploy.compiler.groups.attention import attention_group, shrinking_attention_group
from levit_deploy.compiler.groups.group import Group
from levit_deploy.compiler.groups.head import head_group
from levit_deploy.compiler.groups.linear import linear_groups
from levit_deploy.compiler.groups.stem import stem_group


def levit_groups() -> list[Group]:
    """The larger groups hold linear layers, so they come before them."""
    return [
        stem_group(),
        attention_group(),
        shrinking_attention_group(),
        head_group(),
        *linear_groups(),
    ]
