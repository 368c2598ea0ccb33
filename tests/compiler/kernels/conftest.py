"""What every kernel family's tests share: the targets that this machine can run."""

import pytest

from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.machine import require_native


@pytest.fixture(params=["x86-64", "x86-64-v3", "x86-64-v4"])
def host_target(request: pytest.FixtureRequest) -> Target:
    """Each vector width that this CPU has, in turn."""
    target = get_target(request.param)
    require_native(target, "a kernel called from Python")
    return target
