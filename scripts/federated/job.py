# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

"""Train a bundle in a federation, here in NVFlare's simulator: all sites on this machine.

``python scripts/federated/job.py bundle/endofm_polyp_segmentation --data DIR --sites "['a','b']" --output outputs``
"""

from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv, set_per_site_config

from endofm_monai.utils import run_from_command_line, write_json


def run(
    bundle: str, data: str, sites: list[str], output: str, rounds: int = 2, metric: str = "dice", **settings: Any
) -> Path:
    """Average the weights of the sites, each with the data in ``<data>/<name of the site>``; gives the weights' file.

    Args:
        bundle: the bundle's folder, the same path at server and sites.
        data: the folder of the sites' data, likewise.
        sites: their names, as ``"['a','b']"``.
        output: sites write to the folders of their names in it, the server to ``server``.
        rounds: how often they average, each time after an epoch.
        metric: of the evaluation, by which the server keeps the best weights.
        settings: values for keys of ``train.json``, for example ``preset="small"``.
    """
    bundle, data, output = (str(Path(path).resolve()) for path in (bundle, data, output))
    sites, arguments = list(ensure_tuple(sites)), Path(output, "client.json")  # fire gives one name as text
    if missing := [Path(data, site) for site in sites if not Path(data, site).is_dir()]:
        raise FileNotFoundError(f"{missing[0]}: is no folder; each site's data are in that of its name.")
    write_json(arguments, {"bundle": bundle, "data": data, "output": output, "epochs": rounds, **settings})
    network = "endofm_monai.apps.sharing.federated.initial_network"
    recipe = FedAvgRecipe(
        name="server",
        model={"class_path": network, "args": {"bundle": bundle, **settings}},
        min_clients=len(sites),
        num_rounds=rounds,
        key_metric=metric,
        train_script=str(Path(__file__).with_name("client.py")),
        launch_external_process=True,
    )
    set_per_site_config(recipe, {site: {"train_args": f"{arguments} {site}"} for site in sites})
    result = recipe.execute(SimEnv(clients=sites, workspace_root=output)).get_result()
    return next(Path(result).rglob("FL_global_model.pt"))


if __name__ == "__main__":
    run_from_command_line(run)
