# The two commands to start with: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: setup demo test test-slow test-board lint man clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt tests/requirements-nodeps.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test]"
	$(BIN)/pip install --quiet --no-deps -r tests/requirements-nodeps.txt
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

# A file's tests run in one process, which compiles once what they share; the last ones are shared out.
test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not board" $(PYTEST_ARGS)

test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(PYTEST_ARGS)

# A whole arm64 computer in qemu, made of Debian's packages; the image stays in build/.
test-board: setup
	command -v qemu-system-aarch64 >/dev/null && command -v ssh >/dev/null || \
	$(SUDO) apt-get install -y -qq --no-install-recommends qemu-system-arm openssh-client
	$(BIN)/python -m tests.boards.virtual_board
	$(BIN)/python -m pytest -m board $(PYTEST_ARGS) tests/boards

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

man: setup  # pages for `man -l build/man/levit-deploy.1`
	$(BIN)/python -c "from click_man.core import write_man_pages; \
	from levit_deploy import __version__; from levit_deploy.cli import commands; import os; \
	os.makedirs('build/man', exist_ok=True); \
	write_man_pages('levit-deploy', commands, version=__version__, target_dir='build/man')"

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
