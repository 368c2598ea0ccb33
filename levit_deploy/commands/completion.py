"""`levit-deploy completion`: what makes a shell complete our commands and options."""

from __future__ import annotations

import click

_PROGRAM = "levit-deploy"
_VARIABLE = "_LEVIT_DEPLOY_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    It belongs into ~/.local/share/bash-completion/completions/levit-deploy, ~/.zfunc/_levit-deploy
    or ~/.config/fish/completions/levit-deploy.fish.

    \b
    Examples:
      levit-deploy completion bash
      levit-deploy completion fish
    """
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(context.find_root().command, {}, _PROGRAM, _VARIABLE).source())
