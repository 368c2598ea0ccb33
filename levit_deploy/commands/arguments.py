"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from levit_deploy.errors import DeployError

AUTO = "auto"  # the target that a board says
Value = TypeVar("Value")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class WrongName(click.UsageError):
    """A name that nothing bears, with the lookup's own hint."""

    def __init__(self, error: DeployError) -> None:
        super().__init__(error.message)
        self.hint = error.hint


class Named(click.ParamType[Value], Generic[Value]):
    """The name of something; the command gets the thing itself."""

    def __init__(self, kind: str, lookup: Callable[[str], Value]) -> None:
        self.name = kind
        self._lookup = lookup

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Value:
        try:
            return self._lookup(value)
        except DeployError as error:
            raise WrongName(error) from error


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The value of an option, which may be no `nan` and no `inf`."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number", ctx, param)
    return value


def _spec(name: str) -> object:
    from levit_deploy.models.spec import get_spec

    return get_spec(name)


def _model_or_file(name: str) -> object:
    return Path(name) if name.endswith(".onnx") else _spec(name)


def _target(name: str) -> object:
    from levit_deploy.targets.table import get_target

    return get_target(name)


def _board(url: str) -> object:
    """The machine, whose connection ends with the command."""
    from levit_deploy.machines.open import open_machine

    machine = open_machine(url)
    click.get_current_context().call_on_close(machine.close)
    return machine


def _target_or_auto(name: str) -> object:
    return AUTO if name == AUTO else _target(name)


def _libc(name: str) -> object:
    from levit_deploy.targets.system import System

    return System.parse(name)


def _recipe(name: str) -> object:
    from levit_deploy.calibration.recipe import get_recipe

    return get_recipe(name)


def _library_name(name: str) -> str:
    from levit_deploy.runtime.driver import check_name

    check_name(name)
    return name


model_argument: Decorator = click.argument("spec", metavar="MODEL", type=Named("model", _spec))
optional_model_argument: Decorator = click.argument(
    "spec", metavar="[MODEL]", required=False, type=Named("model", _spec)
)
model_or_file_argument: Decorator = click.argument(
    "model", metavar="[MODEL|FILE.onnx]", required=False, type=Named("model", _model_or_file)
)
artifact_argument: Decorator = click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path)
)
target_option: Decorator = click.option(
    "--target",
    required=True,
    type=Named("target", _target),
    help="The CPU or board to compile for; `levit-deploy targets` lists them, `host` is this one.",
)
target_or_auto_option: Decorator = click.option(
    "--target",
    required=True,
    type=Named("target", _target_or_auto),
    help="The CPU or board to compile for; `levit-deploy targets` lists them, `host` is this one, "
    "`auto` that of --on.",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON."
)
os_option: Decorator = click.option(
    "--os",
    type=click.Choice(["linux", "windows", "macos", "ios"]),
    default="linux",
    show_default=True,
    help="The system of the device; for Android it is `--libc android`.",
)
libc_option: Decorator = click.option(
    "--libc",
    type=Named("libc", _libc),
    help="The C library of the device: `glibc-2.28` (that release or newer), `musl`, or `android`."
    "  [default: glibc-2.17]",
)
name_option: Decorator = click.option(
    "--name",
    type=Named("name", _library_name),
    help="What the library, its header and its symbols are called.  [default: the model's name]",
)
recipe_option: Decorator = click.option(
    "--recipe",
    default="w8a8",
    show_default=True,
    type=Named("recipe", _recipe),
    help="How to quantize: a name, or a .json file.",
)
data_option: Decorator = click.option(
    "--data",
    metavar="FOLDER|FILE.npz|demo|none",
    callback=lambda ctx, param, value: None if value == "none" else value,
    help="The pictures to calibrate int8 on; `demo` are those in the package. With `none` ranges "
    "come from the checkpoint's BatchNorms.  [default: none]",
)
skip_broken_option: Decorator = click.option(
    "--skip-broken", is_flag=True, help="Leave out pictures that cannot be read."
)


def on_option(help: str, *, multiple: bool = False) -> Decorator:
    """The board or boards of --on, which are not connected yet."""
    return click.option(
        "--on",
        "boards" if multiple else "board",
        metavar="URL",
        multiple=multiple,
        type=Named("board", _board),
        help=f"{help}: ssh://USER@HOST, adb:SERIAL or labgrid:PLACE.",
    )
