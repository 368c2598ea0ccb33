"""One small artifact, built once, that most tests of the runtime room look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from levit_deploy.compiler.program import Program
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.runtime.build import build_artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.runtime.small_network import SmallNetwork


@pytest.fixture(scope="session")
def host_toolchain() -> Toolchain:
    return find_toolchain(get_target("host"))


@pytest.fixture(scope="session")
def network() -> SmallNetwork:
    return SmallNetwork.random(seed=0)


@pytest.fixture(scope="session")
def program(
    network: SmallNetwork, host_toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Program:
    return network.program(host_toolchain, tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def artifact(
    program: Program,
    network: SmallNetwork,
    host_toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    parent: Path = tmp_path_factory.mktemp("artifact")
    return build_artifact(program, host_toolchain, network.self_test(), parent)
