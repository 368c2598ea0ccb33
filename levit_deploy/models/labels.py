"""The value of `--labels` -> what each class is called, in the order of the model's outputs."""

from __future__ import annotations

from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.models.config import Config
from levit_deploy.records import read_json

_HINT = "one label a line, in UTF-8, or a JSON list"


def read_labels(value: str) -> tuple[str, ...]:
    """Names with commas between, or a file: one a line, a JSON list, or an object by number.

    Of an object that is a configuration, `id2label` or `label_names` is taken. Raises DeployError
    if the file cannot be read or says none of these.
    """
    path = Path(value)
    if not path.is_file():
        if "," not in value:
            raise DeployError(
                f"no labels at `{value}`", hint="--labels labels.txt, or --labels cat,dog"
            )
        return tuple(name.strip() for name in value.split(","))
    content = read_json(path, hint=_HINT) if path.suffix == ".json" else _lines(path)
    if not isinstance(content, dict):
        names = content if isinstance(content, list) else []
        content = {"labels": [name for name in names if name != ""]}
    elif not {"id2label", "label_names"} & set(content):
        content = {"labels": content}
    config = Config(str(path), path.name, content)
    found = config.names("id2label") or config.names("label_names") or config.names("labels")
    if not found:
        raise DeployError(f"`{path}` holds no labels", hint=_HINT)
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DeployError(f"cannot read `{path}`: {error}", hint=_HINT) from error
