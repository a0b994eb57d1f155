#!/usr/bin/env bash
# Installs MONAI Label 0.8.5 into the environment whose Python is given (PYTHON, by default python), which has this
# package already:
#   install.sh slim   beside numpy 2, without what annotating images does not need: for development and tests
#   install.sh full   all of MONAI Label, which brings numpy down to 1.26: for an environment of its own
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
PYTHON="${PYTHON:-python}"
pip() { "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"; }
versions() {
    "$PYTHON" -c '
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in ("numpy", "torch", "torchvision", "monai", "pydicom")), sep=", ")'
}

case "${1:-}" in
    slim)
        # the requirements of MONAI Label and pydicom-seg forbid numpy 2: pip is told to pass over them, and says so
        before="$(versions)"
        pip --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
        pip ${LOCK:+--constraint "$LOCK"} --requirement "$here/requirements-slim.txt"
        if [ "$(versions)" != "$before" ]; then
            echo "The installation of MONAI Label changed $before to $(versions)." >&2
            exit 1
        fi
        ;;
    full)
        pip --requirement "$here/requirements-full.txt"
        ;;
    *)
        echo "usage: $0 slim|full" >&2
        exit 2
        ;;
esac

# pydicom-seg imports one constant from where pydicom 2 had it; the place that pydicom 2 and 3 share is pydicom.uid
"$PYTHON" - <<'PYTHON'
from importlib.metadata import files
for file in files("pydicom-seg"):
    if file.suffix == ".py":
        path = file.locate()
        text = path.read_text(encoding="utf-8")
        if "pydicom._storage_sopclass_uids" in text:
            path.write_text(text.replace("pydicom._storage_sopclass_uids", "pydicom.uid"), encoding="utf-8")
PYTHON
"$PYTHON" -c 'import endofm_monai, monailabel.app' > /dev/null
