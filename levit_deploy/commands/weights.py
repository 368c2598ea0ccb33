"""The options that say which weights, and what they mean, for every command that loads some."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levit_deploy.commands.arguments import Decorator, Named
from levit_deploy.commands.progress import Phases
from levit_deploy.errors import DeployError

if TYPE_CHECKING:
    from levit_deploy.models.card import ModelCard
    from levit_deploy.models.checkpoint import Checkpoint
    from levit_deploy.models.spec import ModelSpec

FEATURES = "features"
OFFICIAL = "fb_dist_in1k"


@dataclass(frozen=True)
class WeightsChoice:
    """What the options say; None where they say nothing."""

    weights: str | None
    sha256: str | None
    key: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    preprocess: str | None
    labels: str | None
    class_order: str | None
    offline: bool

    def load(
        self,
        phases: Phases,
        spec: ModelSpec | None,
        *,
        features: bool = False,
        size: int | None = None,
        card: ModelCard | None = None,
    ) -> Checkpoint:
        """The weights, of the variant `spec` or of any, and their card as it is overridden.

        `features`: without their head. `size`: of the pictures. `card`: in place of what stands
        beside the weights. Raises DeployError as
        `load_weights`, `Overrides` and `for_image_size` do.
        """
        phases.begin("weights")
        assert self.weights is not None
        from levit_deploy.models.card import ClassOrder, Overrides
        from levit_deploy.models.labels import read_labels
        from levit_deploy.models.resize import for_image_size
        from levit_deploy.models.weights import load_weights

        overrides = Overrides(
            mean=self.mean,
            std=self.std,
            preprocess=self.preprocess,
            labels=read_labels(self.labels) if self.labels else None,
            class_order=ClassOrder(self.class_order) if self.class_order else None,
        )
        checkpoint = load_weights(
            spec,
            self.weights,
            sha256=self.sha256,
            key=self.key,
            features=features,
            offline=self.offline,
            progress=phases.amount,
        )
        if size is not None and size != checkpoint.spec.image_size:
            checkpoint = for_image_size(checkpoint, size)
        known = card or checkpoint.card
        return checkpoint.with_card(overrides.of(known, checkpoint.spec.classes))


OPTION_NAMES = tuple(field.name for field in fields(WeightsChoice))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.replace(",", " ").split()))
    except ValueError as error:
        raise DeployError(f"`{text}` is not numbers", hint="such as 0.5,0.5,0.5") from error


def _sha256(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text.lower()) is None:
        raise DeployError(f"`{text}` is not a SHA-256", hint="it has 64 hexadecimal digits")
    return text.lower()


_WEIGHTS = (
    "A checkpoint (.pth, .bin, .safetensors, .onnx), a folder of transformers or timm, a URL, or "
    "a tag: `fb_dist_in1k` (official, ImageNet) or `demo` (in the package, CIFAR-10)."
)
_named_weights = click.option("--weights", default=OFFICIAL, show_default=True, help=_WEIGHTS)
_recalled_weights = click.option(
    "--weights", help=f"{_WEIGHTS}  [default: what DIR was compiled from]"
)
_OPTIONS = (
    click.option(
        "--sha256",
        metavar="HEX",
        type=Named("sha256", _sha256),
        help="What the file at the URL must have.",
    ),
    click.option(
        "--key", help="Which weights of a file that holds several, such as `state_dict_ema`."
    ),
    click.option("--mean", type=Named("numbers", _numbers), help="Of the pictures, 0 to 1."),
    click.option("--std", type=Named("numbers", _numbers), help="Of the pictures, 0 to 1."),
    click.option(
        "--preprocess",
        metavar="NAME|RESIZE:FILTER:SIDE",
        help="How pictures get the model's size: as `original`, `timm` or `transformers` do; "
        "`squash`; `none`; or such as `shorter:bicubic:256`.",
    ),
    click.option("--labels", metavar="FILE|A,B,...", help="What the classes are called, in order."),
    click.option(
        "--class-order",
        type=click.Choice(["string", "natural"]),
        help="How folders of classes are numbered: 1, 10, 2 (torchvision) or 1, 2, 10 (timm).",
    ),
    click.option(
        "--offline", is_flag=True, help="Never use the network; only what was downloaded before."
    ),
)
size_option = click.option(
    "--size",
    type=click.IntRange(1),
    help="For square pictures of another size, at most that of the weights.",
)


def weights_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets what they say as its argument `choice`."""
    return _collected(command, _named_weights)


def artifact_weights_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`weights_options` of a command on an artifact, which may name no weights: see `recall`."""
    return _collected(command, _recalled_weights)


def _collected(command: Callable[..., Any], weights: Decorator) -> Callable[..., Any]:
    @functools.wraps(command)
    def collected(**values: Any) -> Any:
        choice = WeightsChoice(**{name: values.pop(name) for name in OPTION_NAMES})
        return command(choice=choice, **values)

    decorated: Callable[..., Any] = collected
    for option in reversed((weights, *_OPTIONS)):
        decorated = option(decorated)
    return decorated


def output_option(**attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`-o PATH`, and `--output features` in its place or beside it.

    The command gets `features` as well: whether the model's head is left out.
    """

    def split(ctx: click.Context, param: click.Parameter, values: tuple[Path, ...]) -> Path | None:
        paths = [path for path in values if str(path) != FEATURES]
        ctx.params[FEATURES] = len(paths) < len(values)
        if len(paths) > 1:
            raise click.BadParameter("one place is enough", ctx, param)
        return paths[0] if paths else None

    attributes["help"] += "  `--output features`: the model without its head, in its default place."
    return click.option("-o", "--output", multiple=True, callback=split, **attributes)
