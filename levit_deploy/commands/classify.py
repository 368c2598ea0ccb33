"""The command that asks an artifact what is in a picture."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levit_deploy.commands.arguments import artifact_argument, json_option
from levit_deploy.commands.output import print_columns, print_json, print_text
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.settings import say_what_runs
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from levit_deploy.runtime.artifact import Artifact


@click.command("classify")
@artifact_argument
@click.argument("pictures", metavar="PICTURE...", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How many answers of each picture.",
)
@json_option
def classify_command(folder: Path, pictures: tuple[str, ...], top: int, as_json: bool) -> None:
    """Classify picture files with the artifact in DIR.

    The library makes its image of each picture as the model was evaluated, whatever their sizes,
    and its answers are softmax probabilities.

    This executes the library in DIR, which can do all that you can do: know where it is from.

    \b
    Examples:
      levit-deploy classify build/levit_128s-host-fp32 cat.jpg
      levit-deploy classify build/levit_128s-host-fp32 photos/*.jpg --top 1 --json
    """
    from levit_deploy.runtime.artifact import open_artifact

    _require_files(pictures)
    with Phases() as phases, open_artifact(folder) as artifact:
        _require_this_machine(artifact)
        say_what_runs(phases, artifact)
        phases.begin("classify")
        answers = _classify(artifact, pictures, top)
    if as_json:
        print_json(answers)
        return
    for picture in answers:
        print_text(picture["path"])
        print_columns(
            ("", f"{answer['probability']:7.2%}", answer["label"]) for answer in picture["answers"]
        )


def _classify(artifact: Artifact, pictures: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    """`path` and `answers` of each picture, in order; made in a process of its own."""
    from levit_deploy.machines.machine import NotExecutedError, RunError
    from levit_deploy.machines.process import run_child
    from levit_deploy.targets.host import read_cpu
    from levit_deploy.verify.description import expected_description
    from levit_deploy.verify.level import level_for
    from levit_deploy.verify.process import level_variable, worker_command

    if not artifact.manifest.card.heads:
        raise DeployError(
            f"`{artifact.name}` gives features, not classes",
            hint="compile the model without --output features",
        )
    level = level_for(artifact.manifest, read_cpu())
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as work:
        description, output = Path(work) / "description", Path(work) / "answers.json"
        description.write_text(expected_description(artifact.manifest, level))
        command = worker_command(
            "levit_deploy.verify.classify_worker",
            artifact.shared_library.absolute(),
            description,
            str(top),
            output,
            *(Path(path).absolute() for path in pictures),
        )
        try:
            run_child(command, env=level_variable(level))
        except NotExecutedError:
            raise
        except RunError as error:
            raise DeployError(error.message, hint="name picture files, such as cat.jpg") from error
        answers: list[dict[str, Any]] = json.loads(output.read_text())
    return [{**answer, "path": path} for answer, path in zip(answers, pictures, strict=True)]


def _require_files(pictures: tuple[str, ...]) -> None:
    for path in pictures:
        if not Path(path).is_file():
            is_folder = Path(path).is_dir()
            raise DeployError(
                f"`{path}` is a folder" if is_folder else f"no picture at `{path}`",
                hint=f"name its files: {path}/*.jpg" if is_folder else "name picture files",
            )


def _require_this_machine(artifact: Artifact) -> None:
    from levit_deploy.machines.local import LocalMachine

    manifest = artifact.manifest
    if not LocalMachine().loads(manifest.device):
        raise DeployError(
            f"`{artifact.folder}` is for `{manifest.target}` with {manifest.system}: this machine "
            "cannot load it",
            hint="compile the model for this CPU: --target host",
        )
