"""A prefix for CMake's find_package and for pkg-config, as a .tar.gz; it may be moved anywhere."""

from __future__ import annotations

from levit_deploy.errors import DeployError
from levit_deploy.packaging.archives import Tree
from levit_deploy.packaging.contents import Contents


def check(contents: Contents) -> None:
    """Raise DeployError unless there is one library: a program links one."""
    if len(contents.artifacts) > 1:
        raise DeployError(
            "a cmake package holds the library of one CPU: `"
            + "`, `".join(target.name for target in contents.targets)
            + "` are several",
            hint="make a package for each of them",
        )


def file_name(contents: Contents) -> str:
    return f"{_top(contents)}.tar.gz"


def tree(contents: Contents) -> Tree:
    (artifact,), top = contents.artifacts, _top(contents)
    return {
        f"{top}/include/{artifact.header.name}": artifact.header,
        f"{top}/lib/{artifact.shared_library.name}": artifact.shared_library,
        f"{top}/lib/{artifact.static_library.name}": artifact.static_library,
    }


def _top(contents: Contents) -> str:
    return f"{contents.name}-{contents.version}-{contents.manifest.target}"
