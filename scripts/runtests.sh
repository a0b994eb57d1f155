#!/usr/bin/env bash
# Lint, types and the whole test suite, in an environment of its own. Arguments go to pytest: scripts/runtests.sh -k views
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
ruff check .
ruff format --check .
mypy
python -m pytest "$@"
