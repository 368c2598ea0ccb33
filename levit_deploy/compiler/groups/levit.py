"""All groups, in the order in which they may claim operators."""

from __future__ import annotations

from levit_deploy.compiler.groups.attention import attention_groups, shrinking_attention_groups
from levit_deploy.compiler.groups.group import Group
from levit_deploy.compiler.groups.head import head_groups
from levit_deploy.compiler.groups.linear import linear_groups
from levit_deploy.compiler.groups.mean import mean_group
from levit_deploy.compiler.groups.stem import stem_groups


def levit_groups() -> list[Group]:
    """The larger groups hold linear layers, so they come before them."""
    return [
        *stem_groups(),
        *attention_groups(),
        *shrinking_attention_groups(),
        *head_groups(),
        *linear_groups(),
        mean_group(),
    ]
