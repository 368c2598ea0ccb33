"""The child of `classify`: load a shared library, classify picture files, leave.

Run as a module: `classify_worker LIBRARY DESCRIPTION COUNT ANSWERS.json PICTURE...`, DESCRIPTION as
of library_worker. ANSWERS.json gets a list of `path` and `answers`, in the order of the pictures.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from levit_deploy.errors import DeployError
from levit_deploy.machines.process import CANNOT_EXECUTE
from levit_deploy.verify.library_worker import load_described, may_not_execute


def main(library: str, description: str, count: str, output: str, *pictures: str) -> None:
    loaded = load_described(library, description)
    loaded.self_test()
    answers = [
        {"path": path, "answers": [asdict(answer) for answer in loaded.classify(path, int(count))]}
        for path in pictures
    ]
    Path(output).write_text(json.dumps(answers))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DeployError as error:
        print(error.message, file=sys.stderr)
        sys.exit(CANNOT_EXECUTE if may_not_execute(error) else 1)
