"""A prefix for CMake's find_package and for pkg-config, as a .tar.gz; it may be moved anywhere."""

from __future__ import annotations

from levit_deploy.errors import DeployError
from levit_deploy.packaging.archives import Tree
from levit_deploy.packaging.contents import Contents, documents, target_name
from levit_deploy.runtime.handout import Layout, interface_files
from levit_deploy.targets.system import Os


def check(contents: Contents) -> None:
    """Raise DeployError unless there is one library: a program links one."""
    if len(contents.artifacts) > 1:
        raise DeployError(
            "a cmake package holds the library of one CPU: `"
            + "`, `".join(map(target_name, contents.artifacts))
            + "` are several",
            hint="make a package for each, or compile for all: --target x86-64-any",
        )


def file_name(contents: Contents) -> str:
    return f"{_top(contents)}.tar.gz"


def tree(contents: Contents) -> Tree:
    (artifact,), (target,), top = contents.artifacts, contents.targets, _top(contents)
    libraries = artifact.system.libraries(artifact.name)
    layout = Layout("lib/", "include/", f"lib/cmake/{contents.name}/", "lib/pkgconfig/")
    files = {
        f"include/{artifact.header.name}": artifact.header,
        **{f"lib/{file}": artifact.files / file for file in libraries},
        **interface_files(artifact, target, layout, contents.version),
        **{f"share/doc/{contents.name}/{path.name}": path for path in documents(artifact)},
    }
    return {f"{top}/{path}": files[path] for path in sorted(files)}


def _top(contents: Contents) -> str:
    (artifact,) = contents.artifacts
    os = "" if artifact.system.os is Os.LINUX else f"-{artifact.system.os}"
    return f"{contents.name}-{contents.version}-{target_name(artifact)}{os}"
