# GNU make 3.81 or newer and a POSIX shell. `make` alone tells what there is.
.DEFAULT_GOAL := help
.PHONY: help demo audit test lint types format bench docs lock clean venv venv-dev
.SUFFIXES:

# Read by the recipes as shell variables, so that blanks and quotes in a path survive.
export PYTHON INPUT
BIN := .venv/bin
UPGRADE ?= --upgrade

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  make audit INPUT=triples.csv ARGS="--audit-name nightly"'
	@echo '  make test ARGS="-n 0 -k journal"       ARGS goes on to pytest; -n 0: in one process'
	@echo '  make bench ARGS="--only cpu --triples 20000 --repeat 3"'
	@echo '  PYTHON=/path/to/python3.12             which Python .venv is made from'
	@echo
	@echo '  make knows only 0 and 2: scripts that need the exit code of a run call'
	@echo '  $(BIN)/checkpoint-audit run FILE themselves.'

demo: venv ## audit inputs/sample.csv against the built-in simulator: no account, no network
	@code=0; $(BIN)/checkpoint-audit demo inputs/sample.csv || code=$$?; \
	if [ $$code -eq 4 ]; then \
	  echo 'demo: ended with 4, as it should: the sample has checkpoints that fail and some that nobody could judge.' >&2; \
	else \
	  echo "demo: ended with $$code; 4 was expected (open findings and inconclusive rows)." >&2; \
	  [ $$code -ne 0 ] || code=1; exit $$code; \
	fi

audit: venv ## audit the triples of INPUT (credentials from the environment)
	@if [ -z "$$INPUT" ]; then echo 'audit: say which file: make audit INPUT=triples.csv' >&2; exit 2; fi
	@code=0; $(BIN)/checkpoint-audit run "$$INPUT" $(ARGS) || code=$$?; \
	case $$code in \
	  0) exit 0 ;; \
	  1) words='complete, something is open; published' ;; \
	  2) words='wrong usage' ;; \
	  3) words='not complete, nothing open in the rest; published' ;; \
	  4) words='something is open, and not complete; published' ;; \
	  65) words='the input cannot be used' ;; \
	  66) words='the input is not there, or too old' ;; \
	  69) words='Atlas was not reachable' ;; \
	  70) words='a fault of the program; nothing published' ;; \
	  73) words='the outputs cannot be written' ;; \
	  75) words='another run of this audit is going on' ;; \
	  77) words='credentials missing or refused' ;; \
	  78) words='configuration or policy is wrong' ;; \
	  129|130|143) words='interrupted; the same command goes on with it' ;; \
	  *) words='unexpected' ;; \
	esac; \
	echo "audit: the run ended with $$code ($$words). make itself ends with 2." >&2; exit $$code

test: lint types ## everything that must hold: lint, types, tests
	@echo '==> pytest'
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0 $(ARGS)

lint: venv-dev ## ruff, formatting, import rules
	@echo '==> ruff check'
	@$(BIN)/ruff check .
	@echo '==> ruff format --check'
	@$(BIN)/ruff format --check .
	@echo '==> lint-imports'
	@$(BIN)/lint-imports --no-logo

types: venv-dev ## mypy --strict
	@echo '==> mypy --strict'
	@$(BIN)/mypy --strict pipeline tests

format: venv-dev ## format, and mend what ruff can mend safely
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: venv-dev ## measure speed, memory and rates (about 15 minutes)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

docs: venv ## renew tables.md, rules.md, summary.schema.json and dbt/sources.yml in docs/
	@for page in tables rules; do $(BIN)/python -m pipeline.dictionary $$page > docs/$$page.md || exit 1; done
	@$(BIN)/python -m pipeline.report.schema > docs/summary.schema.json
	@$(BIN)/checkpoint-audit schema --dbt > docs/dbt/sources.yml

lock: ## renew the lock files (UPGRADE= keeps the versions that still fit)
	@sh -c "$$MAKE_LOCKS"

clean: ## remove .venv, caches and builds; outputs/ stays
	rm -rf .venv .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find pipeline tests -type d -name __pycache__ -prune -exec rm -rf {} +

venv:
	@sh -c "$$MAKE_VENV" venv requirements.lock

venv-dev:
	@sh -c "$$MAKE_VENV" venv requirements-dev.lock

# Finds a Python that is new enough and can make environments: by running each, because a name on
# the PATH may be a shim that only fails.
define FIND_PYTHON
find_python() {
  if [ -n "$${PYTHON:-}" ]; then set -- "$$PYTHON"
  else set -- python3.14 python3.13 python3.12 python3.11 python3 python; fi
  seen=
  for candidate in "$$@"; do
    answer=$$("$$candidate" -c '
import sys
try:
    import ensurepip, venv
    able = "able"
except ImportError:
    able = "without venv"
print("%d.%d" % sys.version_info[:2], "too old" if sys.version_info < (3, 11) else able)
' 2>/dev/null) || continue
    if [ "$${answer#* }" = able ]; then python=$$candidate; return 0; fi
    seen="$$seen
  $$candidate: Python $$answer"
  done
  say "Python 3.11 or newer is needed, with its venv module, and was not found."
  if [ -n "$${PYTHON:-}" ] && [ -z "$$seen" ]; then say "  $$PYTHON does not run"; fi
  if [ -n "$$seen" ]; then say "Looked at:$$seen"; fi
  say "What helps:"
  say "  Debian, Ubuntu   sudo apt-get install python3 python3-venv   (python3.12-venv for a python3.12, and so on)"
  say "  macOS            brew install python@3.13"
  say "  elsewhere        make PYTHON=/path/to/python3.12 ..."
  return 1
}
endef

# sh -c MAKE_VENV venv LOCK: makes .venv hold what LOCK says, and this project.
# A stamp is written last and tells the folder and the lock that a set was installed from. What has
# no stamp, or another one, is made again from nothing; only adding the development set to a sound
# run-time set keeps what is there.
define MAKE_VENV
set -eu
say() { printf '%s\n' "$$*" >&2; }
$(FIND_PYTHON)
log=.venv/install.log
key() { pwd; cksum <"$$1"; }
stamped() { [ "$$(key "$$1" 2>&1)" = "$$(cat ".venv/stamp-$$1" 2>/dev/null)" ]; }
sound() {
  .venv/bin/python -c 'import pip' 2>/dev/null && stamped requirements.lock || return 1
  [ "$$lock" = requirements.lock ] || [ ! -e .venv/stamp-requirements-dev.lock ] || stamped "$$lock"
}
quietly() {
  if "$$@" >>"$$log" 2>&1; then return 0; fi
  tail -n 25 "$$log" >&2
  say "venv: this failed: $$*"
  say "venv: all of its output is in $$log; the next make starts over"
  return 1
}
pip() { quietly env PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip --no-input "$$@"; }

lock=$$1
if ! sound; then
  find_python
  if [ -e .venv ]; then say "venv: .venv is unfinished or out of date: making it again"; fi
  rm -rf .venv
  say "venv: making .venv with $$python"
  mkdir .venv
  quietly "$$python" -m venv .venv
fi
if ! stamped "$$lock"; then
  rm -f .venv/stamp-requirements*.lock
  say "venv: installing $$lock (a minute or two the first time)"
  pip install --require-hashes -r "$$lock"
fi
if ! stamped pyproject.toml; then
  say "venv: installing this project"
  pip install --no-deps --no-build-isolation --editable .
  key pyproject.toml >.venv/stamp-pyproject.toml
fi
# The development set contains the run-time set.
key requirements.lock >.venv/stamp-requirements.lock
if ! stamped "$$lock"; then key "$$lock" >".venv/stamp-$$lock"; fi
endef
export MAKE_VENV

define MAKE_LOCKS
set -eu
say() { printf '%s\n' "$$*" >&2; }
$(FIND_PYTHON)
if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then uv=uv
else
  uv=.venv-lock/bin/uv
  if ! "$$uv" --version >/dev/null 2>&1; then
    find_python
    say "lock: fetching uv into .venv-lock"
    rm -rf .venv-lock
    "$$python" -m venv .venv-lock
    .venv-lock/bin/python -m pip install -qq --disable-pip-version-check uv
  fi
fi
compile() {
  output=$$1; shift
  say "lock: $$output"
  "$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
    --custom-compile-command 'make lock' --annotation-style line \
    --no-emit-index-url --no-emit-find-links --output-file "$$output" "$$@" pyproject.toml
  if grep -n '://' "$$output"; then say "lock: $$output must not name hosts"; return 1; fi
}
# The larger set first: what its packages want of each other bounds the smaller one too.
compile requirements-dev.lock --group build --extra speed --extra s3 --extra warehouse --extra dev
compile requirements-extras.lock --group build --extra speed --extra s3 --extra warehouse --constraint requirements-dev.lock
compile requirements.lock --group build --constraint requirements-dev.lock
endef
export MAKE_LOCKS
