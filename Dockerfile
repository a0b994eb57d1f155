# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0
#
# CPU:  docker build -t endofm --build-arg PIP_EXTRA_INDEX_URL=<index of PyTorch's CPU wheels, see pytorch.org> .
# CUDA: docker build -t endofm --build-arg BASE=nvidia/cuda:13.0.2-base-ubuntu24.04 .
# Use:  docker run --rm [--gpus all] --network none --user "$(id -u)" -v "$PWD:/data" endofm predict video.mp4 -o results

ARG BASE=python:3.12-slim
FROM ${BASE}
ARG PIP_EXTRA_INDEX_URL=

# images of CUDA come without Python; PyTorch's wheels bring what else they need
RUN command -v python3 || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*; }

# first what changes seldom
WORKDIR /opt/endofm
COPY requirements.txt ./
COPY scripts/constraints scripts/constraints
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv && python -m pip install --requirement requirements.txt --constraint \
    "scripts/constraints/python$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt"

# editable, so that the command finds the bundles beside the package
COPY . .
RUN python -m pip install --no-deps --editable . && python -m compileall -q endofm_monai

# results belong to whom `--user` names; anybody may run it
ENV HOME=/tmp USER=endofm MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["endofm"]
CMD ["info"]
