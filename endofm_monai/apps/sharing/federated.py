# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

import os
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines import Trainer
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import copy_model_state
from torch import nn

from endofm_monai.utils import PathLike, literal_texts, read_json

ROUND = "current_round"  # key of the `extra` of `FederatedClient.train`: the number of the round, from 0


class FederatedClient(MonaiAlgo):
    """A site of a federation that trains a bundle: MONAI's client, whose process may be restarted between rounds.

    With each round the weights come from the server; what is the site's own (optimizer, place in the schedules, random
    states, centre of the loss) stays in its checkpoint. The round 0 begins anew, also where a former federation was.

    Args:
        output: each client writes to the folder of its name in this one.
        local_epochs: epochs in a round.
        settings: values for keys of ``train.json``: ``dataset_dir``, ``epochs`` (of all rounds together), ...
    """

    def __init__(self, bundle: PathLike, output: PathLike, local_epochs: int = 1, **settings: Any) -> None:
        super().__init__(os.path.abspath(bundle), local_epochs, send_weight_diff=False)
        self.output, self.settings = Path(output), settings

    def initialize(self, extra: dict[str, Any]) -> None:
        """Build training and evaluation for the client named in ``extra``."""
        folder = self.output / extra[ExtraItems.CLIENT_NAME]
        self.checkpoint = folder / "models" / "checkpoint.pt"
        self.model_filepaths[ModelType.BEST_MODEL] = str(self.checkpoint.with_name("model.pt"))
        places = {"ckpt_dir": str(self.checkpoint.parent), "output_dir": str(folder / "eval")}
        common = literal_texts({"bundle_root": self.bundle_root, **self.settings, **places})
        self.train_kwargs, self.eval_kwargs = {**common, "resume": True}, dict(common)
        super().initialize(extra)
        self.trainer.add_event_handler(Events.STARTED, self._begin_round)  # after the checkpoint is taken over

    def train(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> None:
        """Train a round, with the number in ``extra``, from the weights in ``data``."""
        if (extra or {}).get(ROUND, self.trainer.state.epoch // self.local_epochs) == 0:
            self.checkpoint.unlink(missing_ok=True)
        super().train(data, extra)

    def _begin_round(self, trainer: Trainer) -> None:
        trainer.state.max_epochs = trainer.state.epoch + self.local_epochs
        self.iter_of_start_time = trainer.state.iteration
        copy_model_state(src=self.global_weights, dst=trainer.network)


def initial_network(bundle: str, **settings: Any) -> nn.Module:
    """The network that the clients of a bundle train, with ``settings`` as theirs, for the server to begin with."""
    parser = ConfigParser(read_json(Path(bundle, "configs", "train.json"), dict))
    parser.update({**settings, "device": "$torch.device('cpu')"})
    return parser.get_parsed_content("network")
