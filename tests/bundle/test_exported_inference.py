# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import BundleUnderTest
from ignite.engine import Events
from monai.bundle import create_workflow
from trial import TRIAL_INFERENCE

from endofm_monai.apps.sharing.export import EXPORTED_NAMES, export_network
from endofm_monai.engines import VideoEvaluator, VideoEvents
from endofm_monai.inferers import OnnxNetwork
from endofm_monai.networks.nets import detector

OTHER_SHAPES = {  # than that of the export
    "endofm_pretraining": [(1, 3, 1, 32, 48), (3, 3, 5, 224, 128)],
    "endofm_polyp_classification": [(1, 3, 1, 32, 48), (3, 3, 5, 224, 128)],
    "endofm_polyp_segmentation": [(1, 3, 1, 32, 48), (3, 3, 5, 224, 128)],
    "endofm_polyp_detection": [(1, 3, 4, 64, 96), (3, 3, 2, 64, 96)],
}
FEW_FILES = {
    "endofm_polyp_segmentation": {"formats": ["png"]},
    "endofm_polyp_detection": {"formats": ["csv"], "close_up": 0.6},
}


@pytest.fixture
def bundle(request, monkeypatch) -> BundleUnderTest:
    monkeypatch.setitem(detector.SIZES, "tiny", (32, 1))  # the ONNX exporter takes its time for each operation
    return BundleUnderTest(request.param)


def outputs_of(folder: Path, datalist: Path, output_dir: Path, *configs: str) -> list[torch.Tensor]:
    """Every tensor that a bundle's inference gives: the output of its evaluator, or its answers for videos."""
    settings = {**TRIAL_INFERENCE[folder.name], **FEW_FILES.get(folder.name, {})}
    if len(configs) > 1:  # what is exported has its size
        settings = {key: value for key, value in settings.items() if not key.startswith("network_def")}
    made = create_workflow(
        config_file=[str(folder / "configs" / f"{name}.json") for name in configs],
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(folder),
        dataset_dir=str(datalist.parent),
        datalist=str(datalist),
        output_dir=str(output_dir),
        device="$torch.device('cpu')",
        **settings,
    )
    outputs: list[torch.Tensor] = []
    evaluator, note = made.evaluator, lambda engine, name: outputs.extend(tensors(getattr(engine.state, name)))
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, note, "output")
    if isinstance(evaluator, VideoEvaluator):
        evaluator.add_event_handler(VideoEvents.PIECE_COMPLETED, note, "answer")
    made.run()
    return outputs


def tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (dict, list, tuple)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from tensors(part)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("format", ["ts", "onnx"])
@pytest.mark.parametrize("bundle", OTHER_SHAPES, indirect=True)
def test_overlay_gives_what_the_network_gives(bundle, with_model, trial_datalist, trial_network, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    settings = TRIAL_INFERENCE[bundle.folder.name]
    network_settings = {key: value for key, value in settings.items() if key not in ("num_workers", "plot")}
    path = export_network(with_model, with_model / "models" / "model.pt", format, **network_settings)
    assert path == with_model / "models" / EXPORTED_NAMES[format]

    state = torch.load(with_model / "models" / "model.pt", weights_only=True)
    expected = outputs_of(with_model, trial_datalist, tmp_path / "plain", "inference")
    (with_model / "models" / "model.pt").unlink()  # so that nothing but the exported file is left to use
    found = outputs_of(with_model, trial_datalist, tmp_path / "exported", "inference", f"inference_{format}")
    assert sum(output.numel() for output in expected) > 10
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    written = [{p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")} for name in ("plain", "exported")]
    assert written[0] == written[1] != set()

    exported = OnnxNetwork(path) if format == "onnx" else torch.jit.load(str(path))
    network = trial_network(bundle, "inference", settings).eval()
    network.load_state_dict(state)
    for shape in OTHER_SHAPES[bundle.folder.name]:
        clip = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(exported.eval()(clip), network(clip), rtol=1e-3, atol=1e-4)
