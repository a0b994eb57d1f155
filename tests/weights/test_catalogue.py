# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from endofm_monai.networks.nets.backbone import BACKBONE_PRESETS
from endofm_monai.utils import sha256
from endofm_monai.weights import WeightsError, catalogue
from endofm_monai.weights.catalogue import (
    CATALOGUE,
    direct_address,
    download,
    list_published,
    read_catalogue,
    show_published,
)

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 5000  # more than a block
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


def test_entries_are_whole():
    for file in read_catalogue().values():
        assert file.page.startswith(("https://", "bundle/")), file.name
        assert file.url is None or file.url.startswith("https://"), file.name
        assert file.size is None or file.size > 0, file.name
        assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16)), file.name
        assert file.alive in (True, False, None), file.name
        assert bool(file.seen_by) is (file.alive is not None), file.name
        assert file.preset is None or file.preset in BACKBONE_PRESETS, file.name
        for field in dataclasses.fields(file):  # a date or a number that YAML makes of a text
            assert field.name in ("size", "alive") or isinstance(getattr(file, field.name), (str, type(None))), (
                file.name
            )


def test_what_does_not_fit_says_why():
    for file in read_catalogue().values():
        assert file.preset or file.loads.startswith(("no: ", "no backbone: ", "its layout is not known")), file.name


def test_the_published_endo_fm():
    file = read_catalogue()["endo_fm.pth"]
    assert (file.size, file.preset, file.alive) == (2_310_444_446, "base", True)
    assert file.sha256 == "6fc7a64a044f1eff3b7f9eb233df37a3607735848d534364f12c2aebad1aea70"


@pytest.mark.parametrize("bundle", [f"endofm_polyp_{task}" for task in ("segmentation", "detection", "classification")])
def test_the_projects_own_networks_are_those_in_its_bundles(bundle):
    file = read_catalogue()[f"{bundle}.safetensors"]
    weights = ROOT / file.page
    assert (file.size, file.sha256) == (weights.stat().st_size, sha256([weights]))


def test_the_table():
    header, *lines = list_published().splitlines()[:-2]
    assert header.split() == ["name", "method", "task", "preset", "size", "link", "licence", "of", "weights"]
    assert [line.split()[0] for line in lines] == list(read_catalogue())
    link = header.index("link")
    assert lines[0][link:].split("  ")[0] == "alive 2026-08-31"
    assert "dead 2026-08-27" in next(line for line in lines if line.startswith("endofm_lv.pth "))
    assert [line.split()[0] for line in list_published("phases").splitlines()[1:-2]] == ["cholec80.pth"]
    for task in ("phase", ["phases"]):
        with pytest.raises(ValueError, match="`task` must be one of backbone, .*segmentation, found .*phase"):
            list_published(task)


def test_all_that_is_known_of_one():
    text = show_published("endo_fm.pth")
    assert "2,310,444,446 bytes" in text
    assert "link:     alive 2026-08-31, zz0209/EndoSAE" in text
    assert "weights: no separate statement" in text
    assert "SHA-256:  not known" in show_published("endofm_lv.pth")
    with pytest.raises(WeightsError, match=r"endo\.pth: .*no such file\. Did you mean `endo_fm\.pth`"):
        show_published("endo.pth")


def test_it_is_part_of_the_package():
    name = CATALOGUE.relative_to(ROOT / "endofm_monai").as_posix()
    assert f'"{name}"' in (ROOT / "pyproject.toml").read_text()


class Server(HTTPServer):
    """A server of one file on this machine, with the faults that a test sets."""

    content, version, kind = CONTENT, "one", "application/octet-stream"
    ranges, status, breaks_at = True, 200, None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        start = int(re.findall(r"\d+", asked)[0]) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else server.status)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.version)
        self.end_headers()
        self.wfile.write(body if server.breaks_at is None else body[: max(server.breaks_at - start, 0)])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def publish(tmp_path, monkeypatch, server):
    """Make a catalogue of one file on the server."""
    entry = {"task": "backbone", "page": "https://page", "loads": "no: a test", "url": server.url}
    shared = {"code_licence": "MIT", "weights_licence": "CC BY 4.0"}

    def make(**fields: Any) -> None:
        path = tmp_path / "catalogue.yaml"
        path.write_text(yaml.safe_dump({"M": {**shared, "files": {"file.pth": {**entry, **fields}}}}))
        monkeypatch.setattr(catalogue, "CATALOGUE", path)

    make(size=len(CONTENT), sha256=DIGEST)
    return make


@pytest.fixture
def fetch(tmp_path):
    return lambda **options: download("file.pth", tmp_path / "out", **{"accept_licence": True, **options})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("out/*"))


@pytest.mark.parametrize("known", [True, False])
def test_a_whole_file(tmp_path, publish, fetch, server, capsys, known):
    if not known:
        publish()
    assert f"1,280,000 bytes, SHA-256 {DIGEST}" in fetch()
    assert capsys.readouterr().out == "file.pth: code: MIT; weights: CC BY 4.0\n"
    assert (tmp_path / "out" / "file.pth").read_bytes() == CONTENT
    assert files(tmp_path) == ["file.pth"]
    assert f"is there already, SHA-256 {DIGEST}" in fetch()
    assert len(server.asked) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_broken_connection_goes_on(tmp_path, publish, fetch, server, known):
    if not known:
        publish()
    for server.breaks_at in (HALF, HALF + 1000):
        with pytest.raises(WeightsError, match=f"broke off after {server.breaks_at:,} bytes; the same command"):
            fetch()
        assert "file.pth" not in files(tmp_path)
    server.breaks_at = None
    fetch()
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert (tmp_path / "out" / "file.pth").read_bytes() == CONTENT
    assert files(tmp_path) == ["file.pth"]


@pytest.mark.parametrize("change", [{"ranges": False}, {"version": "two"}, {"content": CONTENT[: HALF - 1]}])
def test_a_part_that_cannot_go_on_is_fetched_anew(tmp_path, publish, fetch, server, change):
    publish()
    server.breaks_at = HALF
    with pytest.raises(WeightsError, match="broke off"):
        fetch()
    server.breaks_at = None
    for name, value in change.items():
        setattr(server, name, value)
    fetch()
    assert server.asked[-1] is None
    assert (tmp_path / "out" / "file.pth").read_bytes() == server.content
    assert files(tmp_path) == ["file.pth"]


def test_another_hash_is_not_left_under_the_name(tmp_path, publish, fetch):
    publish(size=len(CONTENT), sha256="0" * 64)
    with pytest.raises(WeightsError, match=rf"another file than the published: SHA-256 {DIGEST} instead of 0{{64}}"):
        fetch()
    assert files(tmp_path) == []


def test_another_size_is_told_before_anything_is_fetched(tmp_path, publish, fetch):
    publish(size=77)
    with pytest.raises(WeightsError, match="another file than the published: 1,280,000 instead of 77 bytes"):
        fetch()
    assert files(tmp_path) == []


def test_another_file_under_the_name_stays(tmp_path, publish, fetch, server):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file.pth").write_text("mine")
    with pytest.raises(WeightsError, match=r"out/file\.pth: is another file"):
        fetch()
    assert (tmp_path / "out" / "file.pth").read_text() == "mine"
    assert server.asked == []


def test_a_page_instead_of_the_file_keeps_what_has_come(tmp_path, publish, fetch, server):
    server.breaks_at = HALF
    with pytest.raises(WeightsError, match="broke off"):
        fetch()
    server.breaks_at, server.ranges, server.kind = None, False, "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="a page instead of the file; look at it in a browser: https://page"):
        fetch()
    server.ranges, server.kind = True, "application/octet-stream"
    fetch()
    assert server.asked[-1] == f"bytes={HALF}-"


def test_a_link_that_has_died(tmp_path, publish, fetch, server):
    server.content = b""
    with pytest.raises(WeightsError, match=rf"{server.url}: answers with 416"):
        fetch()
    publish(url="http://127.0.0.1:1/file.pth")
    with pytest.raises(WeightsError, match="cannot be reached"):
        fetch()
    assert files(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_error_of_the_server(tmp_path, publish, fetch, server, status):
    server.status = status
    with pytest.raises(WeightsError, match=rf"{server.url}: answers with {status} .*the link may be dead"):
        fetch()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (
            {},
            {"accept_licence": False},
            r"accept its licence \(code: MIT; weights: CC BY 4\.0\) with `--accept_licence`",
        ),
        ({"weights_licence": None}, {"accept_licence": "yes"}, "weights: not known"),
        ({"alive": False, "seen": "2026-08-27"}, {}, "its link is dead 2026-08-27; ask for the file at https://page"),
        ({"url": None}, {}, "has no address that a program can fetch; it is at https://page"),
    ],
)
def test_refused_before_anything_is_asked(tmp_path, publish, fetch, server, fields, options, message):
    publish(**fields)
    with pytest.raises(WeightsError, match=message):
        fetch(**options)
    assert (server.asked, files(tmp_path)) == ([], [])


def test_the_address_of_a_file_on_google_drive():
    page = "https://drive.google.com/file/d/1H7B91Ewm4QkZRsnUk1Bn0IQch5P8C7Xl/view"
    assert "id=1H7B91Ewm4QkZRsnUk1Bn0IQch5P8C7Xl&" in direct_address(page)
    assert direct_address("https://host/file.pth") == "https://host/file.pth"
