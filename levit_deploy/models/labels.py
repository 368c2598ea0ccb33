"""The value of `--labels` -> what each class is called, in the order of the model's outputs."""

from __future__ import annotations

import json
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.models.config import Config


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
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else text.splitlines()
        if not isinstance(content, dict | list):
            raise ValueError("neither a list nor an object")
    except (OSError, ValueError, RecursionError) as error:
        raise DeployError(
            f"cannot read `{path}`: {error}", hint="one label a line, in UTF-8"
        ) from error
    if not isinstance(content, dict):
        content = {"labels": [name for name in content if name != ""]} if content else {}
    elif not {"id2label", "label_names"} & set(content):
        content = {"labels": content}
    config = Config(str(path), path.name, content)
    found = config.names("id2label") or config.names("label_names") or config.names("labels")
    if not found:
        raise DeployError(f"`{path}` holds no labels", hint="one label a line, or a JSON list")
    return found
