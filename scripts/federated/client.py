# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""What a site of a federation runs; ``job.py`` beside it says where and with what."""

import json
import sys
from pathlib import Path
from typing import Any

import nvflare.client as flare
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from endofm_monai.apps.sharing.federated import ROUND, FederatedClient


def run(site: str, bundle: str, data: str, output: str, **settings: Any) -> None:
    """Take part in a federation with the data in ``<data>/<site>``."""
    client = FederatedClient(bundle, output, dataset_dir=str(Path(data, site)), **settings)
    client.initialize({ExtraItems.CLIENT_NAME: site})  # MONAI lists modules, which NVFlare's threads import
    flare.init()
    while flare.is_running():
        model = flare.receive()
        weights = ExchangeObject(weights=model.params)
        metrics = client.evaluate(weights).metrics
        client.train(weights, {ROUND: model.current_round})
        update = client.get_weights()
        # by which the server weights the sites: without it those with few videos would count as much as others
        meta = {"NUM_STEPS_CURRENT_ROUND": update.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]}
        flare.send(flare.FLModel(params=update.weights, metrics=metrics, meta=meta))
    client.finalize()


if __name__ == "__main__":
    run(sys.argv[2], **json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
