# Thin names for one-line commands. Each target makes the environment first where it is missing or out of date.
#   make test PYTHON=python3.12      another Python
#   make test VENV=/some/folder      another place for the environment
#   make test CPU=1                  PyTorch's CPU build: a Linux machine without an NVIDIA GPU saves several GB

PYTHON ?= python3
VENV ?= .venv

export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
pip_options := $(if $(filter 1,$(CPU)),--extra-index-url https://download.pytorch.org/whl/cpu)
ready := $(VENV)/.ready

.PHONY: help demo lab test notebooks lint book handout here

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(ready) ## repair one face and write demo.png
	$(VENV)/bin/edgeconnect-lite demo

lab: $(ready) ## open the course in JupyterLab
	$(VENV)/bin/edgeconnect-lite lab

test: $(ready) ## run every test and every notebook
	$(VENV)/bin/python -m pytest

notebooks: $(ready) ## execute the notebooks again and store their outputs
	$(VENV)/bin/python notebooks/execute.py

lint: $(ready) ## ruff and pyright
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m pyright --pythonpath $(VENV)/bin/python

book: $(ready) ## build the course as a site: docs/_build/html/index.html
	$(VENV)/bin/python -m sphinx -q -E -W --keep-going -c docs -d docs/_build/doctrees . docs/_build/html

handout: ## the last commit without solutions, for students: handout.zip
	git archive --format=zip --prefix=edgeconnect-lite/ -o handout.zip HEAD . \
	  ':(exclude)notebooks/solutions' ':(exclude)docs/code/solutions.md' ':(exclude)tests' ':(exclude)TEACHING.md'

here: ## install into the Python that runs, without what only the tests need
	$(PYTHON) -m pip install --no-cache-dir $(pip_options) -c constraints.txt -e .

$(ready): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This course needs Python 3.11 or newer with the venv module, and '$(PYTHON)' is not that." \
	    "Install it (Debian and Ubuntu: python3-venv), or name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(pip_options) -c constraints.txt -e '.[dev]'
	@touch $@
