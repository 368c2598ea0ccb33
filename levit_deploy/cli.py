"""`levit-deploy`: the list of commands, and what becomes of their errors.

Exit codes: 0 done, 1 the job failed, 2 wrong usage, 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from levit_deploy import __version__
from levit_deploy.commands.arguments import WrongName
from levit_deploy.commands.audit import audit_command
from levit_deploy.commands.bench import bench_command
from levit_deploy.commands.boards import boards_command
from levit_deploy.commands.build import compile_command, export_command, verify_command
from levit_deploy.commands.classify import classify_command
from levit_deploy.commands.completion import completion_command
from levit_deploy.commands.output import printable_lines
from levit_deploy.commands.package import package_command
from levit_deploy.commands.quantize import quantize_command
from levit_deploy.commands.show import (
    doctor_command,
    inspect_command,
    models_command,
    targets_command,
)
from levit_deploy.commands.sign import sign_command
from levit_deploy.commands.tune import tune_command
from levit_deploy.errors import DeployError
from levit_deploy.urls import public


class _Terminated(BaseException):
    """SIGTERM as an exception, so that what was being written is cleaned up on the way out."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="levit-deploy %(version)s")
def commands() -> None:
    """Compile a trained LeViT into one self-contained C library for a CPU.

    \b
    Start here:
      levit-deploy compile --target host levit_128s --weights demo -o build/
      levit-deploy inspect build/levit_128s-host-fp32
    """


for command in (
    compile_command,
    export_command,
    quantize_command,
    verify_command,
    audit_command,
    classify_command,
    package_command,
    sign_command,
    bench_command,
    tune_command,
    inspect_command,
    models_command,
    targets_command,
    doctor_command,
    boards_command,
    completion_command,
):
    commands.add_command(command)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command (default: of this process's arguments) and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # in any locale, as stderr does
        sys.stdout.reconfigure(errors="backslashreplace")
    args = sys.argv[1:] if args is None else args
    command_line = ("levit-deploy", *map(public, args))  # the manifest keeps it
    try:
        code = commands.main(
            args, prog_name="levit-deploy", standalone_mode=False, obj=command_line
        )
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except WrongName as error:
        _fail(error.message, error.hint, code=2)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "levit-deploy"
        _fail(error.format_message(), f"{command} --help", code=2)
    except DeployError as error:
        _fail(error.message, error.hint, code=1)
    except BrokenPipeError:  # `levit-deploy targets | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(*_explain(error), code=1)
    except MemoryError:
        _fail("not enough memory", "end other programs, or take fewer images", code=1)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", None, code=130)
    except _Terminated:
        _fail("terminated", None, code=143)
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_streams() -> None:
    """Where the caller closed one, nothing goes to it, and no file takes its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(null := os.open(os.devnull, os.O_RDWR), number, inheritable=True)
            if null != number:
                os.close(null)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _explain(error: OSError) -> tuple[str, str]:
    """(message, hint) for what the system refused."""
    where = f"`{error.filename}`: " if error.filename else ""
    full = "free some space, or choose other folders: -o, TMPDIR=DIR"
    hints = {
        None: full,  # numpy only says how much it could not write
        errno.ENOSPC: full,
        errno.EDQUOT: full,
        errno.EFBIG: full,
        errno.EACCES: "check the permissions, or write elsewhere with -o",
        errno.EROFS: "write elsewhere with -o",
    }
    return f"{where}{error.strerror or error}", hints.get(error.errno, "check the path")


def _fail(message: str, hint: str | None, code: int) -> NoReturn:
    text = f"error: {message}\n"
    if hint:
        text += f"\nhint: {hint}\n"
    click.echo(printable_lines(text), err=True, nl=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
