# Makes the virtual environment of this checkout and installs the package with its development tools into it.
# Sourced by the other scripts. PYTHON chooses the interpreter, VENV the folder of the environment; UNLOCKED=1 takes the
# newest versions that requirements*.txt allow instead of the tested ones in scripts/constraints/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-$PWD/.venv}"

if [ -z "${PYTHON:-}" ]; then
    for candidate in python3 python python3.{14,13,12,11,10} "$HOME"/.pyenv/versions/3.1[0-4].*/bin/python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            PYTHON="$candidate"
            break
        fi
    done
fi
if [ -z "${PYTHON:-}" ]; then
    echo "Endo-FM for MONAI needs Python 3.10 to 3.14; set PYTHON to one." >&2
    exit 1
fi

LOCK="scripts/constraints/python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt"
[ -z "${UNLOCKED:-}" ] || LOCK=""
installed="$VENV/installed.sha"
wanted="$(cat pyproject.toml requirements.txt requirements-dev.txt ${LOCK:+"$LOCK"} | cksum)"
if [ ! -f "$installed" ] || [ "$(cat "$installed")" != "$wanted" ]; then
    echo "Installing into $VENV (torch is large: this takes some minutes) ..."
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --upgrade pip
    "$VENV/bin/python" -m pip install --quiet ${LOCK:+--constraint "$LOCK"} --editable ".[dev]"
    echo "$wanted" > "$installed"
fi
export LOCK PATH="$VENV/bin:$PATH"
