"""Weights and pictures that a command's options do not name: those that the manifest does."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.progress import Phases
from levit_deploy.commands.weights import WeightsChoice
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from levit_deploy.runtime.artifact import Artifact

NO_DATA = ""  # where a command takes no pictures


def recall(
    phases: Phases, choice: WeightsChoice, artifact: Artifact, data: str | None = NO_DATA
) -> tuple[WeightsChoice, str]:
    """Weights and pictures: what the options name, else what the artifact was made from.

    Raises DeployError, which names all that is missing, if the manifest does not say, if they are
    no longer where they were, or if these are other pictures now. That the weights are the same is
    checked by who loads them.
    """
    known = artifact.manifest.provenance
    if choice.weights is not None and data is not None:
        return choice, data
    weights, pictures = (known.weights, known.data) if known else (None, None)
    reasons = {}
    if choice.weights is None and (reason := _missing("weights", weights)):
        reasons["--weights FILE"] = reason
    if data is None and (reason := _missing("pictures", pictures)):
        reasons["--data FOLDER"] = reason
    if choice.weights is None and data != NO_DATA and weights and weights.endswith(".onnx"):
        reasons["--weights FILE"] = f"names `{weights}`, which are no weights but a model"
    if reasons:
        why = ", and ".join(reasons.values())
        raise _type_it(f"the manifest of `{artifact.folder}` {why}", artifact, *reasons)
    if choice.weights is None and known is not None:
        phases.note(f"weights {weights} from the manifest")
        choice = replace(choice, weights=weights, key=choice.key or known.key)
    if data is None:
        data = str(pictures)
        _check_pictures(artifact, data)
        phases.note(f"pictures {data} from the manifest: it was calibrated on these")
    return choice, data


def _missing(what: str, name: str | None) -> str | None:
    """Why what the manifest names cannot be had; None if it can."""
    from levit_deploy.models.lasting_names import can_be_found, is_url

    if name is None:
        return f"names no {what}"
    if can_be_found(name):
        return None
    gone = "of which a part is secret and was not kept" if is_url(name) else "no longer there"
    return f"names the {what} `{name}`, {gone}"


def _check_pictures(artifact: Artifact, data: str) -> None:
    from levit_deploy.calibration.image_set import find_pictures, whole_digest
    from levit_deploy.models.demo import DemoSplit

    manifest, card = artifact.manifest, artifact.manifest.card
    found = find_pictures(data, DemoSplit.CALIBRATION, card.preprocessing, card.in_chans)
    assert manifest.provenance is not None
    if whole_digest(found) != manifest.provenance.data_digest:
        raise _type_it(
            f"`{data}` no longer holds the pictures that `{artifact.folder}` was calibrated on",
            artifact,
            f"--data {shlex.quote(data)}",
        )


def _type_it(message: str, artifact: Artifact, *options: str) -> DeployError:
    command = click.get_current_context().info_name
    folder = shlex.quote(str(artifact.folder))
    return DeployError(message, hint=f"levit-deploy {command} {folder} {' '.join(options)}")
