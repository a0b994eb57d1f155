#!/usr/bin/env bash
# Writes scripts/constraints/python3.*.txt, the versions that scripts/ install, with uv (pip install uv): the newest that
# requirements*.txt and MONAI Label allow on each Python. Run it to take newer ones, then scripts/runtests.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for version in 3.10 3.11 3.12 3.13 3.14; do
    uv pip compile --quiet --upgrade --python-version "$version" --no-header --no-annotate \
        --output-file "scripts/constraints/python$version.txt" \
        requirements.txt requirements-dev.txt scripts/monai_label/requirements-slim.txt
done
