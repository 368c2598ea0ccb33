"""The command that searches how kernels are cut best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from levit_deploy.commands.arguments import (
    json_option,
    model_or_file_argument,
    on_option,
    target_option,
)
from levit_deploy.commands.output import columns, print_columns, print_json
from levit_deploy.commands.progress import Phases
from levit_deploy.commands.settings import reach

if TYPE_CHECKING:
    from levit_deploy.compiler.tiles.registry import Spec, Tile
    from levit_deploy.compiler.tiles.table import TileRow
    from levit_deploy.machines.machine import Machine
    from levit_deploy.models.spec import ModelSpec
    from levit_deploy.targets.target import Target


@click.command("tune")
@model_or_file_argument
@target_option
@on_option("Measure on this board, or on several equal ones (--on again)", multiple=True)
@click.option(
    "-o",
    "--output",
    default="tiles.json",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that gets the tiles; a search that was interrupted goes on where it stopped.",
)
@click.option(
    "--candidates",
    type=click.IntRange(2, 100),
    default=12,
    show_default=True,
    help="Tiles to try for each kernel, the default one among them.",
)
@json_option
def tune_command(
    model: ModelSpec | Path,
    target: Target,
    boards: tuple[Machine, ...],
    output: Path,
    candidates: int,
    as_json: bool,
) -> None:
    """Search the best tile of each kernel.

    `compile --tiles` reads the file. Kernels of MODEL, or of a file that `export` or `quantize`
    wrote, are timed on the boards of `--on`, or here if this CPU runs the target's code. Otherwise
    tiles are ranked by the instructions of their inner loops, and marked as modelled. A tile
    replaces the default one only if it is better twice, and computes the same bits.

    Boards with the same CPU share the kernels, which are compiled here while they measure. Where
    one is gone, its work goes to the others; what is done is in the file, and is not done again.

    \b
    Examples:
      levit-deploy tune --target host levit_128s
      levit-deploy compile --target host levit_128s --tiles tiles.json
      levit-deploy tune --target host levit_128s_int8.onnx
      levit-deploy tune --target rpi5 levit_128s --on ssh://pi@pi1 --on ssh://pi@pi2
    """
    from levit_deploy.targets.toolchain import find_toolchain

    toolchain = find_toolchain(target)
    with Phases() as phases:
        for board in boards:
            reach(phases, board)
        phases.begin("tune")
        from levit_deploy.export.exported import ExportedModel
        from levit_deploy.tune.model import tune_model
        from levit_deploy.tune.search import plan_search

        tuned = ExportedModel.load(model) if isinstance(model, Path) else model
        search = plan_search(toolchain, boards, candidates, phases.note)
        settings = {
            "model": f"{tuned.name}, {tuned.image_size} px",
            "target": f"{target.name} ({target.base})" if target.base else target.name,
            "measured": search.measured_by,
            **({"boards": ", ".join(board.name for board in boards)} if boards else {}),
            "output": str(output),
        }
        phases.note(columns(settings.items()))
        started, found = time.monotonic(), 0

        def on_row(row: TileRow, done: int, total: int) -> None:
            nonlocal found
            found += 1
            left_s = (time.monotonic() - started) / found * (total - done)
            phases.note(f"{done} of {total}, about {left_s:.0f} s left: {' '.join(_cells(row))}")
            phases.detail(f"kernel {min(done + 1, total)} of {total}, about {left_s:.0f} s left")

        rows = tune_model(tuned, search, output, on_row)
    if as_json:
        print_json({"schema_version": 1, "path": str(output), "rows": [asdict(r) for r in rows]})
    else:
        _print_rows(rows, output)


def _print_rows(rows: Sequence[TileRow], output: Path) -> None:
    print_columns([("KERNEL", "TILE", "TO DEFAULT", "TIME"), *map(_cells, rows)])
    better = sum(row.ratio < 1 for row in rows)
    click.echo(f"{better} of {len(rows)} kernels are better with another tile than the default")
    click.echo(f"{output}")


def _cells(row: TileRow) -> tuple[str, str, str, str]:
    from levit_deploy.compiler.tiles.registry import family_of

    family = family_of(row.spec).name
    time_text = "modelled" if row.microseconds is None else f"{row.microseconds:.1f} us"
    change = f"{row.ratio:.3f}" if row.ratio < 1 else "kept"
    return f"{family} {_facts(row.spec)}", _facts(row.tile), change, time_text


def _facts(value: Spec | Tile) -> str:
    """Fields that say something, such as `rows 49, columns 256, depth 128, residual, rows`."""
    facts = []
    for name, fact in asdict(value).items():
        if fact is True or isinstance(fact, str):
            facts.append(name if fact is True else str(fact))
        elif fact:
            numbers = fact if isinstance(fact, tuple) else (fact,)
            facts.append(f"{name.replace('_', ' ')} {'+'.join(map(str, numbers))}")
    return ", ".join(facts)
