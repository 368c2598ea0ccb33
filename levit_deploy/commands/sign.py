"""`levit-deploy sign`, and what other commands have to do with signatures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import artifact_argument
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from levit_deploy.runtime.signature import Signer

_KEY = click.Path(dir_okay=False, path_type=Path)

sign_option = click.option(
    "--sign",
    "secret_key",
    type=_KEY,
    metavar="KEY",
    help="Sign the artifact's manifest with a secret key of minisign.",
)
public_key_option = click.option(
    "--public-key",
    type=_KEY,
    metavar="PUB",
    help="Run nothing unless the owner of this public key of minisign signed the artifact.",
)


@click.command("sign")
@artifact_argument
@click.option(
    "--key",
    "secret_key",
    type=_KEY,
    required=True,
    metavar="KEY",
    help="A secret key, made by `minisign -G`.",
)
def sign_command(folder: Path, secret_key: Path) -> None:
    """Sign the artifact in DIR, as minisign does.

    The signature, manifest.json.minisig, is of the manifest, which has the SHA-256 of every file:
    those are checked first. An audit writes into the manifest: sign after it. Nothing in DIR is
    executed.

    \b
    Examples:
      minisign -G -s levit.key -p levit.pub
      levit-deploy sign build/levit_128s-host-fp32 --key levit.key
      levit-deploy verify build/levit_128s-host-fp32 --public-key levit.pub
    """
    from levit_deploy.runtime.artifact import Artifact
    from levit_deploy.runtime.signature import FILE_NAME

    signer = open_signer(secret_key)
    Artifact.load(folder)
    signer.sign(folder)
    click.echo(f"{folder / FILE_NAME}")


def open_signer(secret_key: Path) -> Signer:
    """The key, with its password asked for if it has one. Raises DeployError as `Signer.open`."""
    from levit_deploy.runtime.signature import Signer

    def ask() -> str:
        if not sys.stdin.isatty():
            raise DeployError(
                f"`{secret_key}` has a password, and nobody is there to type it",
                hint="for machines make a key without one: minisign -G -W",
            )
        return str(click.prompt(f"password of {secret_key}", hide_input=True, err=True))

    return Signer.open(secret_key, ask)
