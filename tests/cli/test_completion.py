"""What a shell is told, asked as the shell asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_and_answers(shell: str) -> None:
    command = [sys.executable, "-m", "levit_deploy.start"]
    script = subprocess.run(
        [*command, "completion", shell], capture_output=True, text=True, check=True
    )
    assert f"_LEVIT_DEPLOY_COMPLETE={shell}_complete" in script.stdout
    words = "levit-deploy verify --public" if shell != "fish" else "levit-deploy verify "
    asked = {
        "_LEVIT_DEPLOY_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": "2" if shell != "fish" else "--public",
    }
    answers = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **asked}, check=True
    )
    assert "--public-key" in answers.stdout
