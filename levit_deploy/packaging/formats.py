"""The kinds of packages: a row each, and how any of them is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.files import new_file
from levit_deploy.packaging import aar, cargo, cmake, wheel, xcframework
from levit_deploy.packaging.archives import Tree, Writer, write_tar, write_zip
from levit_deploy.packaging.contents import Contents


@dataclass(frozen=True)
class Format:
    """A kind of package.

    `description`: of what it is for, in some words. `check`: raises DeployError for contents that
    it cannot hold, such as a name that is no identifier in its language. `file_name`: of the
    package. `tree`: its files; `write`: them -> the package.
    """

    name: str
    description: str
    check: Callable[[Contents], None]
    file_name: Callable[[Contents], str]
    tree: Callable[[Contents], Tree]
    write: Writer


FORMATS = {
    format.name: format
    for format in (
        Format(
            "wheel",
            "Python by pip",
            wheel.check,
            wheel.file_name,
            wheel.tree,
            write_zip,
        ),
        Format(
            "cmake",
            "C and C++ by find_package or pkg-config",
            cmake.check,
            cmake.file_name,
            cmake.tree,
            write_tar,
        ),
        Format(
            "cargo",
            "Rust by cargo",
            cargo.check,
            cargo.file_name,
            cargo.tree,
            write_tar,
        ),
        Format(
            "aar",
            "Kotlin, Java and the NDK on Android by Gradle",
            aar.check,
            aar.file_name,
            aar.tree,
            write_zip,
        ),
        Format(
            "xcframework",
            "Swift and C on macOS and iOS by Xcode or a Swift package",
            xcframework.check,
            xcframework.file_name,
            xcframework.tree,
            write_zip,
        ),
    )
}


def get_format(name: str) -> Format:
    """The format called `name`; raises DeployError for an unknown name."""
    if name not in FORMATS:
        raise DeployError(f"unknown format `{name}`", hint=f"--as {' or --as '.join(FORMATS)}")
    return FORMATS[name]


def make_package(contents: Contents, format: Format, parent: Path, *, force: bool = False) -> Path:
    """Make the package of `contents` in `parent`, which may be made too; the path of the package.

    It appears whole or not at all. Raises DeployError if the format cannot hold the contents, if
    the file exists and not `force`, or if it cannot be written.
    """
    format.check(contents)
    path = parent / format.file_name(contents)
    with new_file(path, replace=force, hint="choose another folder: -o DIR") as partial:
        format.write(format.tree(contents), partial)
    return path
