# make demo    aspirin for 1 ps at constant energy and 1 ps with a thermostat; needs only Python 3.11
#              or newer and make
# make test    all tests
# make lint    ruff, mypy, and what reads workflows, issue forms and CITATION.cff
# make wheels  build what a release uploads, install and test it in fresh environments
# make bench-check  compare a handful of timings with the baseline, ARGS=--update to write it
# make bench-peers  time other potentials in an environment of their own, .venv-peers
# make clean   remove everything that was made
#
# ARGS="..." are passed on to the demo or to pytest, PYTHON=... is the Python to make .venv with,
# WORKERS=... the number of processes that share the tests.

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: bench-check bench-peers clean demo lint test wheels

WORKERS ?= auto
python := .venv/bin/python
wanted := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
candidates := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)
usable = $(firstword $(foreach name,$(candidates),$(shell \
	$(name) -c '$(wanted)' >/dev/null 2>&1 && echo '$(name)')))
no_python = Python 3.11 or newer with the modules venv and ensurepip is needed (Debian and Ubuntu \
	have them in the package python3-venv); found none among: $(candidates). \
	Give one with make PYTHON=/path/to/python

# A .venv whose Python has gone is made anew, and so is one in which making it or installing was
# interrupted, which leaves .venv/.unfinished: pip may take half a package for a whole one.
sound := $(shell test ! -e .venv/.unfinished && $(python) -c 'import sys, \
	pip._internal.cli.main; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo yes)
ifneq ($(sound),yes)
.PHONY: .venv/.made
endif

define install
	@echo "installing '.[$(1)]' into .venv"
	@touch .venv/.unfinished
	@$(python) -m pip install --no-user --disable-pip-version-check --quiet \
		--constraint constraints.txt --editable '.[$(1)]'; \
		status=$$?; rm -f .venv/.unfinished; exit $$status
	@touch $@
endef
declared := setup.cfg constraints.txt
comma := ,

demo: .venv/.demo
	$(python) -m ase_student.demo $(ARGS)

test: .venv/.test
	$(python) -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile $(ARGS)

bench-check: .venv/.test
	$(python) benchmarks check $(ARGS)

bench-peers: .venv/.made $(declared)
	test -x .venv-peers/bin/python || $(python) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check --quiet \
		--constraint constraints.txt --editable '.[peers]'
	.venv-peers/bin/python -m pytest benchmarks/test_peers.py benchmarks/test_md.py -k 'aspirin or peers' \
		--benchmark-json peers.json $(ARGS)

lint: .venv/.test
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	.venv/bin/zizmor --quiet --offline --config .github/zizmor.yml .github
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	.venv/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

# As cibuildwheel tests them: from a folder without the sources, with the engine.
wheels: .venv/.made
	rm -rf dist build .venv-wheels
	$(python) -m pip install --disable-pip-version-check --quiet build
	ASE_STUDENT_ENGINE=1 $(python) -m build --outdir dist .
	for file in dist/*.whl dist/*.tar.gz; do \
		rm -rf .venv-wheels && $(python) -m venv .venv-wheels && \
		ASE_STUDENT_ENGINE=1 .venv-wheels/bin/python -m pip install --disable-pip-version-check \
			--quiet --constraint constraints.txt "$$file" pytest hypothesis && \
		(cd .venv-wheels && bin/ase-student doctor && bin/python -m pytest -q \
			-p no:cacheprovider --import-mode=importlib ../tests/test_engine.py \
			../tests/test_plugin.py) || exit 1; \
	done
	rm -rf .venv-wheels
	@ls -l dist

.venv/.made:
ifneq ($(sound),yes)
	$(if $(usable),,$(error $(no_python)))
	rm -rf .venv
	@mkdir .venv && touch .venv/.unfinished
	$(usable) -m venv .venv
	@rm .venv/.unfinished
endif
	@touch $@

.venv/.demo: .venv/.made $(declared)
	$(call install,plot)

# One environment for tests and lint: each installation compiles the engine, and mypy reads the
# annotations of what the tests install.
.venv/.test: .venv/.made $(declared)
	$(call install,test$(comma)dev)

clean:
	rm -rf .venv .venv-peers .venv-wheels build dist *.egg-info demo-output .coverage htmlcov
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find ase_student tests -name __pycache__ -exec rm -rf {} +
