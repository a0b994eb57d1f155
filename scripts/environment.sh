# Makes the virtual environment of this checkout and installs the package with its development tools into it.
# Sourced by the other scripts. PYTHON chooses the interpreter, VENV the folder of the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-$PWD/.venv}"

if [ -z "${PYTHON:-}" ]; then
    for candidate in python3 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            PYTHON="$candidate"
            break
        fi
    done
fi
if [ -z "${PYTHON:-}" ]; then
    echo "Endo-FM for MONAI needs Python 3.10, 3.11 or 3.12; set PYTHON to one." >&2
    exit 1
fi

installed="$VENV/installed.sha"
wanted="$(cat pyproject.toml requirements.txt requirements-dev.txt | cksum)"
if [ ! -f "$installed" ] || [ "$(cat "$installed")" != "$wanted" ]; then
    echo "Installing into $VENV (torch is large: this takes some minutes) ..."
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --upgrade pip
    "$VENV/bin/python" -m pip install --quiet --editable ".[dev]"
    echo "$wanted" > "$installed"
fi
PATH="$VENV/bin:$PATH"
