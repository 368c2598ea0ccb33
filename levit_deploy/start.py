"""Where a process begins: Ctrl-C is one line from here on, also while modules are imported."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """What `levit-deploy` runs."""
    try:
        from levit_deploy.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.stderr.flush()
        os._exit(130)  # what is half imported is not asked to end


if __name__ == "__main__":
    main()
