"""The command that makes a package for an app of artifacts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import Named, json_option
from levit_deploy.commands.output import bytes_text, print_columns, print_json
from levit_deploy.commands.progress import Phases

if TYPE_CHECKING:
    from levit_deploy.packaging.formats import Format


def _format(name: str) -> object:
    from levit_deploy.packaging.formats import get_format

    return get_format(name)


@click.command("package")
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--as",
    "format",
    required=True,
    metavar="FORMAT",
    type=Named("format", _format),
    help="`wheel` for Python, `cmake` for C and C++, `cargo` for Rust, `aar` for Android, "
    "`xcframework` for macOS and iOS.",
)
@click.option(
    "--version",
    default="1.0",
    show_default=True,
    help="The package's own version: one to three numbers.",
)
@click.option(
    "-o",
    "--output",
    default=Path("dist"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that gets the package.",
)
@click.option("--force", is_flag=True, help="Replace a package of that name.")
@json_option
def package_command(
    folders: tuple[Path, ...],
    format: Format,
    version: str,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Make a package for an app of artifacts.

    Those in DIR... are one model in one precision, for one CPU or, where FORMAT can hold that, for
    several. Each is held against the digests of its manifest; nothing in them is executed.

    \b
    Examples:
      levit-deploy package build/levit_128s-arm64-int8 --as wheel -o dist/
      levit-deploy package build/levit_128s-x86-64-v*-int8 --as wheel --version 1.2
      levit-deploy package build/levit_128s-arm64-int8 --as cmake
      levit-deploy package build/levit_128s-arm64-int8 build/levit_128s-host-int8 --as cargo
      levit-deploy package build/levit_128s-arm64-any-android-int8 --as aar
      levit-deploy package build/levit_128s-arm64-macos-int8 --as xcframework
    """
    from levit_deploy.packaging.contents import open_contents, target_name
    from levit_deploy.packaging.formats import make_package

    with Phases() as phases:
        phases.begin("check")
        with open_contents(folders, version) as contents:
            phases.begin("pack")
            path = make_package(contents, format, output, force=force)
    size_bytes = path.stat().st_size
    if as_json:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        print_json(
            {
                "path": str(path),
                "bytes": size_bytes,
                "sha256": digest,
                "format": format.name,
                "name": contents.name,
                "version": version,
                "targets": [target_name(artifact) for artifact in contents.artifacts],
            }
        )
    else:
        print_columns([(str(path), bytes_text(size_bytes))])
