# make lab     JupyterLab on the example notebook, with a class typing into it (ARGS=--no-browser prints the address)
# make test    everything that is checked: lint, docs, tests; says at the end what this machine lacks
# make lint    ruff and mypy          make docs    the documentation, into site/
# make pictures  the screenshots in docs/images, taken anew
# make test-boards      the examples for Dash and Panel, in an environment that has them
# make test-ipykernel   ipykernel's own tests with this kernel, compared with a plain one
# make soak    the tests that run for minutes         make bench   every benchmark (BENCH=kernel_start: that one)
# make clean   all that these made
#
# Needs make and a Python of 3.11 or later: PYTHON=/path/to/python where `python3` is another.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
# For a second environment with other versions: make test-kernel VENV=.venv-oldest WITH='ipykernel~=7.2.0'
WITH   ?=
BENCH  ?= $(sort $(basename $(notdir $(wildcard benchmarks/[a-z]*.py))))

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

# In a container one is root most often, which JupyterLab wants to hear said.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help lab test test-kernel test-boards test-ipykernel lint docs pictures soak bench clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

lab: $(VENV)/lab.done
	$(VENV)/bin/lo-kernel lab $(AS_ROOT) $(ARGS)

test: lint docs
	$(RUN) -m pytest $(ARGS)

test-kernel: $(VENV)/test.done
	$(RUN) -m pytest tests/test_kernel*.py tests/test_audit_kernel.py tests/test_monitor_end.py $(ARGS)

# In an environment of its own: what ipykernel tests itself with would take our coroutine tests for its own.
test-boards: $(VENV)/test.done
	$(RUN) -m pytest --soak tests/test_other_dashboards.py $(ARGS)

test-ipykernel: PIP_IPYKERNEL = $(VENV)-ipykernel/bin/python -m pip install --quiet --disable-pip-version-check
test-ipykernel:
	@test -x $(VENV)-ipykernel/bin/python || $(PYTHON) -m venv $(VENV)-ipykernel
	$(PIP_IPYKERNEL) --editable . 'pytest<10' pytest-asyncio pytest-timeout flaky ipyparallel psutil trio matplotlib $(if $(WITH),'$(WITH)')
	$(VENV)-ipykernel/bin/python tests/ipykernel_suite.py $(ARGS)

lint: $(VENV)/test.done
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

docs: $(VENV)/test.done
	$(RUN) -m mkdocs build --strict

pictures: $(VENV)/test.done
	$(RUN) -m pytest --pictures -m browser $(ARGS)

soak: $(VENV)/test.done
	-$(PIP) qtconsole PyQt6
	$(RUN) -m pytest --soak -m soak $(ARGS)

bench: $(VENV)/test.done
	@for each in $(BENCH); do echo "== $$each"; $(RUN) benchmarks/$$each.py $(ARGS) || exit 1; done

clean:
	rm -rf $(VENV) $(VENV)-ipykernel build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# What is installed depends on pyproject.toml alone, so that a second run starts at once.
$(VENV)/lab.done $(VENV)/test.done: $(VENV)/%.done: pyproject.toml | $(VENV)/bin/python
	@echo "installing lo_kernel and what it needs into $(VENV) ..."
	$(PIP) --editable '.[$*]' $(WITH)
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lo_kernel needs Python 3.11 or later; '$(PYTHON)' is not: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no virtual environment: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
