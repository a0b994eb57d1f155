# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blob_bundles import FRAMES, HEIGHT, WIDTH, draw, truth
from blob_scene import encoded, put_label
from fastapi import HTTPException

from endofm_monai.apps.monai_label.lib.clips import find_clip
from endofm_monai.apps.monai_label.lib.datastore import CheckedDatastore, check_label
from endofm_monai.utils import TEMPORARY_PREFIX
from tests.support.dicom import write_dicom


def notes(**content: Any) -> bytes:
    return json.dumps(content).encode()


MASK = truth(0).astype(np.uint8)


def test_image_and_labels_come_back_as_they_were(client, studies):
    frame = encoded(draw(20))
    answer = client.put("/datastore/image", params={"image": "new_0001"}, files={"file": ("any.png", frame)})
    assert answer.json() == {"image": "new_0001"}
    assert client.get("/datastore/image", params={"image": "new_0001"}).content == frame
    for name, content in (
        ("label.png", encoded(MASK * 255)),
        ("label.json", notes(label="abnormal", detections=[{"label": "polyp", "box": [1, 2, 30, 40.5]}])),
    ):
        assert put_label(client, "new_0001", content, name).status_code == 200
        back = client.get("/datastore/label", params={"label": "new_0001", "tag": "final"})
        assert back.content == content
    assert client.get("/datastore/").json() == {
        "total": FRAMES + 3,
        "completed": 1,
        "label_tags": {"final": 1},
    }
    client.delete("/datastore/image", params={"id": "new_0001"})
    assert not (studies / "new_0001.png").exists()


@pytest.mark.parametrize(
    ("image", "content", "name", "message"),
    [
        ("case_0001", encoded(MASK.T), "a.png", "72x96"),
        ("case_0001", encoded(MASK[:, :-1]), "a.png", "72x95"),
        ("case_0001", encoded(MASK * 3), "a.png", "but holds 0, 3"),
        ("case_0001", b"no image", "a.png", "not a readable mask"),
        ("case_0001", encoded(MASK * 255, "JPEG"), "a.jpg", "must be .png (a mask) or .json"),
        ("case", encoded(MASK), "a.png", "is a video"),
        ("case_0001", b"{", "a.json", "not readable JSON"),
        ("case_0001", notes(polyps=1), "a.json", "`detections` or `label`"),
        ("case_0001", notes(label=1), "a.json", "the name of a class"),
        ("case_0001", b"[" * 100_000, "a.json", "not readable JSON"),
        ("case_0001", notes(detections=None), "a.json", "`detections` must be a list of boxes, found None"),
        ("case_0001", notes(detections={}), "a.json", "`detections` must be a list of boxes, found {}"),
        ("case_0001", notes(detections=[{"label": "polyp", "box": [1, 2, 3]}]), "a.json", "x1, y1, x2, y2"),
        ("case_0001", notes(detections=[{"label": "polyp", "box": [0.1, 0.2, 0.5, 0.6]}]), "a.json", "shares of the"),
        ("case_0001", notes(detections=[{"label": "polyp", "box": [True, 2, 3, 4]}]), "a.json", "four finite numbers"),
        (
            "case_0001",
            notes(detections=[{"label": "polyp", "box": [1, 2, WIDTH + 1, 4]}]),
            "a.json",
            f"not inside the image of {WIDTH} x {HEIGHT}",
        ),
        ("case", notes(detections=[{"label": "polyp", "box": [1, 2, 3, 4]}]), "a.json", "is a video"),
    ],
)
def test_labels_that_do_not_fit_are_refused(client, studies, image, content, name, message):
    before = sorted(path.name for path in (studies / "labels").rglob("*"))
    answer = put_label(client, image, content, name)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["detail"]
    assert sorted(path.name for path in (studies / "labels").rglob("*")) == before


@pytest.mark.parametrize("content", [encoded(MASK), notes(detections=[{"label": "polyp", "box": [1, 2, 3, 4]}])])
def test_labels_of_an_image_that_cannot_be_read_are_refused(tmp_path, content):
    (tmp_path / "case.png").write_bytes(b"no image")
    label = tmp_path / ("label.json" if content.startswith(b"{") else "label.png")
    label.write_bytes(content)
    with pytest.raises(HTTPException) as caught:
        check_label(label, str(tmp_path / "case.png"))
    assert caught.value.detail.startswith("case.png: is not a readable image")


@pytest.mark.parametrize("name", ["../evil", "..", "a/b", "/tmp/evil", ".hidden", "a\\b", "", "x" * 300])
def test_names_cannot_leave_the_folder(client, studies, name):
    before = set(studies.parent.rglob("*"))
    frame = encoded(draw(20))
    if name:  # without a name the file's is taken
        answer = client.put("/datastore/image", params={"image": name}, files={"file": ("any.png", frame)})
        assert (answer.status_code, "is no name" in answer.text) == (400, True)
        answer = put_label(client, "case_0001", encoded(MASK), tag=name)
        assert (answer.status_code, "is no name" in answer.text) == (400, True)
    answer = put_label(client, name, encoded(MASK))
    assert answer.status_code == 404
    assert set(studies.parent.rglob("*")) == before


def test_names_that_are_too_long_or_would_be_cut_are_refused(client, studies):
    def put(name: str, image: str = "") -> Any:
        files = {"file": (name, encoded(draw(20)))}
        return client.put("/datastore/image", params={"image": image} if image else {}, files=files)

    before = set(studies.parent.rglob("*"))
    for answer in (put("a.png", "漢" * 51), put_label(client, "case_0001", encoded(MASK), tag="漢" * 51)):
        assert (answer.status_code, "150 bytes at most" in answer.text) == (400, True)
    for answer in (put("polyp.0001.png"), put("polyp.0002.png"), put("polyp.0002.png", "polyp")):
        assert (answer.status_code, "several dots and would be 'polyp'" in answer.text) == (400, True)
    assert set(studies.parent.rglob("*")) == before
    answer = put("IM.000001")
    assert (answer.status_code, "a number for a suffix and would be 'IM'" in answer.text) == (400, True)
    for name in ("漢" * 50, "polyp.0001", "polyp.0002"):
        assert put(f"{name}.png", name).json() == {"image": name}
        client.delete("/datastore/image", params={"id": name})


def test_a_label_that_the_disk_does_not_take_is_answered(tmp_path):
    name = "x" * 251
    draw(0).save(tmp_path / f"{name}.png")
    store = CheckedDatastore(str(tmp_path))
    (tmp_path / "label.json").write_bytes(notes(label="normal"))
    with pytest.raises(HTTPException, match=rf"{name}\.json: is not stored \(.*too long") as caught:
        store.save_label(name, str(tmp_path / "label.json"), "final", {})
    assert caught.value.status_code == 507
    assert not store.get_labels_by_image_id(name)


def test_images_that_are_not_there_are_answered(client):
    for answer in (
        client.delete("/datastore/image", params={"id": "unknown"}),
        client.put("/datastore/image/info", params={"image": "unknown"}, data={"info": "{}"}),
        client.get("/datastore/image", params={"image": "../studies/single"}),
        put_label(client, "unknown", encoded(MASK)),
    ):
        assert answer.status_code == 404


def test_files_that_are_no_image_are_refused(client, studies):
    for name, content in (("a.png", b"no image"), ("a.mp4", b"no video"), ("a.py", b"print()"), ("a", b"")):
        answer = client.put("/datastore/image", params={"image": "strange"}, files={"file": (name, content)})
        assert answer.status_code == 400, answer.text
    assert not list(studies.glob("strange*"))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    folder = Path("/proc/self/task") if os.geteuid() == 0 else tmp_path  # root may write to any other
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=rf"{folder}.* cannot write there"):
        CheckedDatastore(str(folder))
    tmp_path.chmod(0o755)


def test_an_image_with_labels_is_not_replaced_by_another(client, studies):
    def put(size: int, name: str = "any.png") -> Any:
        frame = encoded(draw(0).resize((size, size)), name[-3:].upper())
        return client.put("/datastore/image", params={"image": "again"}, files={"file": (name, frame)})

    assert put(40).status_code == 200
    assert put(60, "any.bmp").status_code == 200  # nobody has labeled it yet
    assert [path.name for path in studies.glob("again.*")] == ["again.bmp"]
    assert put_label(client, "again", encoded(np.zeros((60, 60), np.uint8))).status_code == 200
    answer = put(40)
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "again: another image of this name has labels: remove it before.",
    )
    assert put(60, "any.bmp").status_code == 200
    assert client.get("/datastore/?output=train").json()[-1]["image"].endswith("again.bmp")
    client.delete("/datastore/image", params={"id": "again"})
    assert put(40).status_code == 200
    assert client.get("/datastore/").json()["completed"] == 0
    client.delete("/datastore/image", params={"id": "again"})


def test_what_links_lead_to_is_looked_at_in_their_folder_and_never_removed(tmp_path):
    archive, studies = tmp_path / "archive", tmp_path / "studies"
    archive.mkdir()
    studies.mkdir()
    for index in range(3):
        draw(index).save(archive / f"{index}-of-a-store.bmp")
        (studies / f"case_{index}.bmp").symlink_to(archive / f"{index}-of-a-store.bmp")
    draw(5).save(tmp_path / "other.png")
    store = CheckedDatastore(str(studies))
    images, place = find_clip(store.get_image_uri("case_1"))
    assert (images, place) == ([str(studies / f"case_{index}.bmp") for index in range(3)], 1)
    store.remove_image("case_0")
    store.add_image("case_1", str(tmp_path / "other.png"), {})
    assert sorted(path.name for path in studies.glob("case*")) == ["case_1.png", "case_2.bmp"]
    assert len(list(archive.iterdir())) == 3


def test_a_label_of_another_kind_takes_the_place_of_the_former(tmp_path):
    draw(0).save(tmp_path / "case.png")
    store, notes_file, mask_file = CheckedDatastore(str(tmp_path)), tmp_path / "notes.json", tmp_path / "mask.png"
    notes_file.write_bytes(notes(label="normal"))
    mask_file.write_bytes(encoded(MASK))
    for file in (mask_file, notes_file, mask_file):
        store.save_label("case", str(file), "final", {})
        assert [path.suffix for path in (tmp_path / "labels" / "final").iterdir()] == [file.suffix]


@pytest.mark.parametrize("auto_reload", [False, True])
def test_what_another_process_notes_meanwhile_is_kept(tmp_path, auto_reload):
    for name in ("a.png", "b.png"):
        draw(0).save(tmp_path / name)
    (tmp_path / "notes.json").write_bytes(notes(label="normal"))
    server, scoring = (CheckedDatastore(str(tmp_path), auto_reload) for _ in range(2))
    scoring.update_image_info("a", {"uncertainty": {"model": [0.5, "1"]}})
    until = time.monotonic() + 10
    while auto_reload and "uncertainty" not in server.get_image_info("a"):  # so that a strategy finds it
        assert time.monotonic() < until
        time.sleep(0.01)
    server.save_label("a", str(tmp_path / "notes.json"), "final", {"doctor": "x"})
    scoring.update_image_info("b", {"uncertainty": {"model": [0.6, "1"]}})
    for store in (server, scoring, CheckedDatastore(str(tmp_path))):
        store.refresh()
        assert [store.get_image_info(name)["uncertainty"]["model"][0] for name in "ab"] == [0.5, 0.6]
        assert store.get_label_info("a", "final")["doctor"] == "x"
        if auto_reload and store in (server, scoring):
            store._observer.stop()


def test_of_two_files_of_one_name_the_other_is_named(tmp_path, caplog):
    for name in ("a.png", "a.bmp", "b.png"):
        draw(0).save(tmp_path / name)
    store = CheckedDatastore(str(tmp_path))
    assert store.list_images() == ["a", "b"]
    assert [record.message.partition(": ")[2] for record in caplog.records if "left out" in record.message] == [
        "a.bmp is left out, as a.png has its name; rename one."
    ]


NUMBERED = ("1.2.840.113.7", "1.2.840.113.8", "IM000001")  # as DICOM files of exports are named


def test_dicom_files_without_a_suffix_are_images_by_their_whole_names(client, studies, tmp_path, caplog):
    for name in (*NUMBERED, "DICOMDIR", "IM2", "IM2.dcm"):
        write_dicom(tmp_path / name, bytes(16 * 24), NumberOfFrames=None)
    (tmp_path / "notes.7").write_bytes(b"no DICOM")
    (tmp_path / "more").mkdir()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    store = CheckedDatastore(str(tmp_path))
    assert sorted(store.list_images()) == [*NUMBERED, "IM2"]
    assert "IM2 is left out, as IM2.dcm has its name" in caplog.text
    assert "3 files are not used: 1 .7, 1 .png, 1 without suffix" in caplog.text
    assert "2 folders are not looked into: " in caplog.text
    mask = tmp_path.parent / "mask.png"
    mask.write_bytes(encoded(np.ones((16, 24), np.uint8)))
    for name in NUMBERED:
        assert store.get_image_uri(name) == str(tmp_path / name)
        store.save_label(name, str(mask), "final", {})
        content = (tmp_path / name).read_bytes()
        answer = client.put("/datastore/image", params={"image": name}, files={"file": (name, content)})
        assert answer.json() == {"image": name}
        assert client.get("/datastore/image", params={"image": name}).content == content
        assert put_label(client, name, mask.read_bytes()).status_code == 200
    (tmp_path / "datastore_v2.json").unlink()
    for again, folder in ((CheckedDatastore(str(tmp_path)), tmp_path), (CheckedDatastore(str(studies)), studies)):
        images = [item["image"] for item in again.datalist() if Path(item["image"]).name.startswith(NUMBERED)]
        assert [name for name in NUMBERED if again.get_image_uri(name) in images] == list(NUMBERED), folder
    for name in NUMBERED:
        client.delete("/datastore/image", params={"id": name})


def test_files_that_others_copy_and_rename_are_found(tmp_path):
    still = write_dicom(tmp_path / "still.dcm", bytes(16 * 24), NumberOfFrames=None)
    studies = tmp_path / "studies"
    store = CheckedDatastore(str(studies), auto_reload=True)
    try:
        shutil.copy(still, studies / "IM000001")
        shutil.copy(still, studies / ".IM000002.part")
        os.rename(studies / ".IM000002.part", studies / "IM000002")  # as rsync does
        until = time.monotonic() + 10
        while sorted(store.list_images()) != ["IM000001", "IM000002"]:
            assert time.monotonic() < until, store.list_images()
            time.sleep(0.01)
    finally:
        store._observer.stop()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"objects": 5}', "\x00" * 100])
def test_an_unreadable_index_is_made_anew_of_the_labels(tmp_path, content, caplog):
    for name in ("a.png", "b.png"):
        draw(0).save(tmp_path / name)
    store = CheckedDatastore(str(tmp_path))
    for image, label in (("a", encoded(MASK)), ("b", notes(label="normal"))):
        file = tmp_path / ("label.png" if image == "a" else "label.json")
        file.write_bytes(label)
        store.save_label(image, str(file), "final", {})
        file.unlink()
    labels = store.datalist()
    assert len(labels) == 2
    (tmp_path / "datastore_v2.json").write_text(content)
    (tmp_path / "labels" / "final" / f"{TEMPORARY_PREFIX}{2**22 + 1}-a.png").touch()  # as a killed server leaves it
    assert CheckedDatastore(str(tmp_path)).datalist() == labels
    assert "datastore_v2.json: is not readable" in caplog.text
    assert not list(tmp_path.rglob(".endofm-*"))


def test_notes_that_nobody_could_read_are_left_out(tmp_path, caplog):
    draw(0).save(tmp_path / "a.png")
    CheckedDatastore(str(tmp_path)).update_image_info("a", {"doctor": "x"})
    index = tmp_path / "datastore_v2.json"
    index.write_text(index.read_text().replace('"x"', 'NaN, "uncertainty": "high"'))
    store = CheckedDatastore(str(tmp_path))
    assert set(store.get_image_info("a")) == {"path"}
    assert "of a is left out: `uncertainty`" in caplog.text


def save_labels(folder: Path) -> None:
    store = CheckedDatastore(str(folder))
    for index in range(100_000):
        store.save_label("case", str(folder / "label.json"), f"tag{index % 5}", {"index": index})
        (folder / "count").write_text(str(index))


def test_a_killed_server_leaves_labels_and_index_whole(tmp_path):
    draw(0).save(tmp_path / "case.png")
    (tmp_path / "label.json").write_bytes(notes(label="normal", detections=[], padding="x" * 100_000))
    for kill in range(8):
        process = multiprocessing.get_context("fork").Process(target=save_labels, args=(tmp_path,))
        process.start()
        while not (tmp_path / "count").exists():
            time.sleep(0.01)
        time.sleep(0.003 * kill)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        (tmp_path / "count").unlink()
        index = json.loads((tmp_path / "datastore_v2.json").read_text())
        assert index["objects"]["case"]["labels"]
        store = CheckedDatastore(str(tmp_path))
        for tag in index["objects"]["case"]["labels"]:
            assert Path(store.get_label_uri("case", tag)).read_bytes() == (tmp_path / "label.json").read_bytes()
