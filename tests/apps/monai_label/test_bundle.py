# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from pathlib import Path

import pytest
import torch
from blob_bundles import DETECTION, SEGMENTATION, make_bundle, make_studies
from blob_scene import infer, start_app
from PIL import Image

from endofm_monai.apps.monai_label.lib.clips import find_clip, frame_number, neighbors
from endofm_monai.apps.monai_label.main import EndoFMApp, load_tasks
from endofm_monai.inferers import Bundle, BundleError, find_bundles
from endofm_monai.weights import WeightsError


def edit(bundle: Path, name: str, **changes: object) -> None:
    path = bundle / "configs" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_bundles_that_cannot_be_used_are_left_out_with_a_warning(tmp_path, caplog):
    make_bundle(tmp_path, "segmentation")
    (make_bundle(tmp_path, "classification") / "models" / "model.pt").unlink()
    edit(make_bundle(tmp_path, "detection"), "metadata.json", version="7.0.0")
    with caplog.at_level(logging.WARNING):
        assert list(load_tasks(str(tmp_path), "all")) == [SEGMENTATION]
    warnings = "\n".join(record.message for record in caplog.records)
    assert (
        "endofm_polyp_classification/models/model.pt: is missing (model.safetensors is, too), the bundle has no weights"
        in warnings
    )
    assert f"{DETECTION}/configs/metadata.json: `version` is 7.0.0, but the installed package is 0." in warnings


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda bundle: (bundle / "configs" / "inference.json").write_text("{"), r"inference\.json: is not a readable"),
        (lambda bundle: (bundle / "configs" / "metadata.json").unlink(), r"metadata\.json: is not a readable"),
        (
            lambda bundle: edit(bundle, "inference.json", network_def={"_target_": "NoSuch"}),
            r"`predictor` cannot be built.*NoSuch",
        ),
        (lambda bundle: edit(bundle, "inference.json", window=-1), r"endofm_polyp_segmentation: `window` must be"),
        (lambda bundle: edit(bundle, "metadata.json", network_data_format={}), r"metadata\.json: .*channel_def` must"),
    ],
)
def test_damaged_bundles_are_named(tmp_path, spoil, message, caplog):
    spoil(make_bundle(tmp_path, "segmentation"))
    with caplog.at_level(logging.WARNING), pytest.raises(BundleError, match="none of its bundles"):
        load_tasks(str(tmp_path), "all")
    assert any(re.search(message, record.message) for record in caplog.records)


def test_names_of_bundles(tmp_path):
    make_bundle(tmp_path, "segmentation")
    assert [path.name for path in find_bundles(tmp_path)] == [SEGMENTATION]
    for names in ("endofm_other_segmentation", "../" + tmp_path.name, f"{SEGMENTATION},/etc"):
        with pytest.raises(BundleError, match="`models`: .* is no folder in"):
            find_bundles(tmp_path, names)
    with pytest.raises(BundleError, match="`bundles_dir` is not an existing folder"):
        find_bundles(tmp_path / "nowhere")
    (tmp_path / "endofm_pretraining").mkdir()
    with pytest.raises(BundleError, match="must end in one of segmentation"):
        Bundle(tmp_path / "endofm_pretraining")


def test_shared_weights_are_compared_with_their_hash(tmp_path):
    bundle = make_bundle(tmp_path / "bundles", "segmentation")
    client = start_app(make_studies(tmp_path / "studies"), bundles_dir=str(bundle.parent))
    weights = bundle / "models" / "model.pt"
    entry = {
        "path": "models/model.pt",
        "hash_val": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "hash_type": "sha256",
    }
    (bundle / "large_files.yml").write_text(json.dumps({"large_files": [entry]}))
    assert infer(client, SEGMENTATION, image="single").status_code == 200
    state = torch.load(weights, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, weights)
    for answer in (
        infer(client, SEGMENTATION, image="single"),
        client.post(f"/scoring/{SEGMENTATION}?run_sync=true", json={"max_samples": 1}),
    ):
        assert "is not the file that was shared" in answer.text
    assert infer(client, SEGMENTATION, image="single").status_code == 400
    (bundle / "large_files.yml").write_text("{}")
    answer = infer(client, SEGMENTATION, image="single")
    assert (answer.status_code, "large_files.yml: must be a list `large_files`" in answer.text) == (400, True)


def test_shared_weights_that_cannot_be_read_are_not_called_forged(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path, "segmentation")
    weights = bundle / "models" / "model.pt"
    entry = {"path": "models/model.pt", "hash_val": "0" * 64, "hash_type": "sha256"}
    (bundle / "large_files.yml").write_text(json.dumps({"large_files": [entry]}))
    opened = Bundle(bundle)

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"models/model.pt: cannot be read \(Permission denied\)"):
        opened.check_weights(weights)


def test_weights_of_another_network_or_with_code_get_a_message(tmp_path):
    bundle = make_bundle(tmp_path / "bundles", "segmentation")
    client = start_app(make_studies(tmp_path / "studies"), bundles_dir=str(bundle.parent))
    torch.save({"other.weight": torch.zeros(3)}, bundle / "models" / "model.pt")
    answer = infer(client, SEGMENTATION, image="single")
    assert (answer.status_code, "does not fit BlobSegmenter" in answer.text) == (400, True), answer.text
    torch.save({"head": Path}, bundle / "models" / "model.pt")
    answer = infer(client, SEGMENTATION, image="single")
    assert (answer.status_code, "may not run" in answer.text) == (400, True), answer.text


def test_studies_must_be_a_folder(tmp_path):
    bundle = make_bundle(tmp_path, "segmentation")
    with pytest.raises(BundleError, match="holds no bundle; `bundles_dir` is a folder of bundles"):
        load_tasks(str(bundle), "all")
    with pytest.raises(ValueError, match="must be a folder, found http://"):
        EndoFMApp(str(tmp_path), "http://127.0.0.1:8042/dicom-web", {"bundles_dir": str(tmp_path)})


def test_neighbors_are_those_without_a_gap(tmp_path):
    for name in ("a_9.png", "a_10.jpg", "a_011.png", "a_13.png", "b_12.png", "a_10_left.png", "x.png"):
        (tmp_path / name).touch()
    assert [Path(path).name for path in neighbors(str(tmp_path / "a_10.jpg"))] == ["a_9.png", "a_10.jpg", "a_011.png"]
    assert [Path(path).name for path in neighbors(str(tmp_path / "x.png"))] == ["x.png"]
    images, place = find_clip(str(tmp_path / "a_011.png"))
    assert ([Path(path).name for path in images], place) == (["a_9.png", "a_10.jpg", "a_011.png"], 2)
    assert find_clip(str(tmp_path / "a_011.png"), context=False) == ([str(tmp_path / "a_011.png")], 0)
    for name, size in (("c_1.png", 9), ("c_2.png", 9), ("c_3.png", 8), ("c_4.png", 8)):
        Image.new("L", (size, size)).save(tmp_path / name)
    for names in (["c_1.png", "c_2.png"], ["c_3.png", "c_4.png"]):  # another size is another video
        assert all([Path(path).name for path in neighbors(str(tmp_path / name))] == names for name in names)
    assert frame_number("video_1.mp4")[0] != frame_number("video_2.mp4")[0]  # which are no parts of one
