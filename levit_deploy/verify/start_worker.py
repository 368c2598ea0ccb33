"""Runs as a script: `start_worker.py PATH MODULE ARGUMENTS...` runs a module of this package.

Started with -E -P: neither the current folder nor PYTHON* variables decide what is imported. This
package is the one that this file is of; other packages are those of the installation, and only
what it lacks is looked for in PATH, where the parent found it.
"""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[folder.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    path, module = sys.argv[1:3]
    del sys.argv[1:3]
    sys.path += path.split(os.pathsep)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
