"""What to compile for a board, by what it says of itself."""

from __future__ import annotations

from levit_deploy.machines.condition import target_of
from levit_deploy.machines.facts import Facts
from levit_deploy.targets.host import with_caches
from levit_deploy.targets.system import Family, System
from levit_deploy.targets.target import Target


def target_with_caches(facts: Facts) -> Target:
    """The board's own row of the table; or the class of its CPU, with the caches that it has.

    Raises DeployError if its CPU runs none of them.
    """
    target, cpu = target_of(facts), facts.cpu
    if target.base is not None or cpu is None:
        return target
    return with_caches(target, cpu)


def other_libc(facts: Facts) -> System | None:
    """The board's C library, if it is not glibc: for that, what is linked runs on every release."""
    family = (facts.libc or "").partition("-")[0]
    return System.parse(family) if family in (Family.MUSL, Family.ANDROID) else None
