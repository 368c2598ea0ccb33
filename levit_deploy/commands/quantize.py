"""The command that makes an 8-bit model, and what it shares with `compile --precision int8`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import (
    data_option,
    json_option,
    optional_model_argument,
    recipe_option,
    skip_broken_option,
)
from levit_deploy.commands.output import bytes_text, print_json
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.settings import show_settings
from levit_deploy.commands.weights import WeightsChoice, output_option, size_option, weights_options
from levit_deploy.files import check_writable, write_files
from levit_deploy.records import to_json

NO_PICTURES = "no pictures: ranges from what the checkpoint's BatchNorms saw in training"

if TYPE_CHECKING:
    from levit_deploy.calibration.recipe import Recipe
    from levit_deploy.deploy import Calibration
    from levit_deploy.models.checkpoint import Checkpoint
    from levit_deploy.models.spec import ModelSpec


@click.command("quantize")
@optional_model_argument
@weights_options
@size_option
@data_option
@recipe_option
@skip_broken_option
@output_option(
    type=click.Path(dir_okay=False, path_type=Path),
    help="The ONNX file to write.  [default: MODEL_int8.onnx]",
)
@json_option
def quantize_command(
    spec: ModelSpec | None,
    choice: WeightsChoice,
    size: int | None,
    features: bool,
    data: str | None,
    recipe: Recipe,
    skip_broken: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL in 8 bits as a standard ONNX file.

    Beside it lands the table of all decisions, as JSON.

    \b
    Examples:
      levit-deploy quantize levit_128s --weights demo -o levit_128s_int8.onnx
      levit-deploy quantize levit_256 --data photos/ --recipe w8a8-percentile
    """

    if output:
        check_writable(output)  # what cannot work is told of before the long work
    with Phases() as phases:
        checkpoint = choice.load(phases, spec, features=features, size=size)
        path = output or Path(f"{checkpoint.spec.name}_int8.onnx")
        check_writable(path)
        settings = {"recipe": recipe.name, "data": data or NO_PICTURES, "output": str(path)}
        show_settings(phases, checkpoint, settings)
        calibration = open_calibration(phases, checkpoint, data, recipe, skip_broken)
        phases.begin("export")
        from levit_deploy.deploy import calibrate
        from levit_deploy.export.export_model import PROBE_IMAGES, export_checkpoint

        images = calibration.images
        exported = export_checkpoint(checkpoint, images.first(PROBE_IMAGES) if images else None)
        phases.begin("calibrate")
        quantized, table = calibrate(
            checkpoint,
            exported,
            calibration,
            lambda done, total: phases.detail(f"{done} of {total} images"),
        )
        table_path = path.with_suffix(".calibration.json")
        write_files({path: quantized.to_bytes(), table_path: to_json(table).encode()})
    size_bytes = path.stat().st_size
    if as_json:
        files = {"path": str(path), "bytes": size_bytes, "table": str(table_path)}
        print_json({**files, "weights_digest": checkpoint.digest})
    else:
        click.echo(f"{path}  {bytes_text(size_bytes)}\n{table_path}")


def open_calibration(
    phases: Phases, checkpoint: Checkpoint, data: str | None, recipe: Recipe, skip_broken: bool
) -> Calibration:
    """The pictures that `data` names, each looked at once, and the recipe."""
    from levit_deploy.deploy import Calibration

    if data is None:
        return Calibration(None, recipe)
    phases.begin("pictures")
    from levit_deploy.calibration.image_set import open_images

    images = open_images(
        data,
        checkpoint.preprocessing,
        checkpoint.spec.image_size,
        channels=checkpoint.spec.in_chans,
        skip_broken=skip_broken,
        progress=lambda done, total: phases.detail(f"{done} of {total}"),
    )
    for note in images.notes:
        phases.note(note)
    skipped = f", {images.skipped} broken ones left out" if images.skipped else ""
    phases.note(f"pictures: {len(images)} of {images.source}, {images.preprocessing}{skipped}")
    return Calibration(images, recipe)
