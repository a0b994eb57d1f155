#!/usr/bin/env bash
# Lint, types, layers and the whole test suite, in an environment of its own. Arguments go to pytest: scripts/runtests.sh -k views
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# without MONAI Label its app could not be tested, and the run fails
installed="$VENV/monai_label.sha"
wanted="$(cat scripts/monai_label/* "$VENV/installed.sha" | cksum)"
if [ ! -f "$installed" ] || [ "$(cat "$installed")" != "$wanted" ]; then
    PYTHON="$VENV/bin/python" bash scripts/monai_label/install.sh slim
    echo "$wanted" > "$installed"
fi

ruff check .
ruff format --check .
{ lint-imports && mypy; } &  # beside the tests, whose processes wait at times
layers_and_types=$!
unset PYTHONDONTWRITEBYTECODE  # where it is set each process would compile the package and the tests anew
# files go to processes in their order, as the slow ones come first; fixtures of a file are made once; a thread each
export OMP_NUM_THREADS=1
python -m pytest --numprocesses auto --maxprocesses 3 --dist loadfile --no-loadscope-reorder "$@"
wait $layers_and_types
