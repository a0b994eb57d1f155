# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from endofm_monai.formats.annotations import join_tracks, merge_tags
from endofm_monai.formats.cvat_xml import read_cvat_xml, write_cvat_xml
from endofm_monai.formats.items import items_from_annotations

# As CVAT writes them (formats "CVAT for video 1.1" and "CVAT for images 1.1"), shortened
VIDEO = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><id>7</id><name>case 3</name><size>4</size><mode>interpolation</mode><overlap>5</overlap>
<start_frame>10</start_frame><stop_frame>13</stop_frame><frame_filter></frame_filter>
<labels><label><name>polyp</name><color>#ff0000</color><type>any</type><attributes></attributes></label></labels>
<original_size><width>384</width><height>288</height></original_size><source>case3.mp4</source></task>
<dumped>2026-01-01</dumped></meta>
<track id="0" label="polyp" source="manual" group_id="3">
<box frame="10" keyframe="1" outside="0" occluded="0" xtl="1.00" ytl="2.50" xbr="30.00" ybr="40.25" z_order="0">
<attribute name="Paris">Is</attribute></box>
<box frame="11" keyframe="0" outside="0" occluded="0" xtl="2.00" ytl="2.50" xbr="31.00" ybr="40.25" z_order="0"/>
<box frame="12" keyframe="1" outside="1" occluded="0" xtl="2.00" ytl="2.50" xbr="31.00" ybr="40.25" z_order="0"/>
</track>
<track id="1" label="polyp" source="manual">
<mask frame="11" keyframe="1" outside="0" occluded="0" rle="1, 2, 1" left="5" top="6" width="2" height="2" z_order="0"/>
<mask frame="12" keyframe="1" outside="1" occluded="0" rle="1, 2, 1" left="5" top="6" width="2" height="2" z_order="0"/>
</track>
</annotations>"""
TRACK = VIDEO[VIDEO.index("<track") : VIDEO.index('<track id="1"')]
IMAGES = """<annotations><version>1.1</version>
<meta><task><name>frames</name><size>3</size><mode>annotation</mode></task></meta>
<image id="0" name="a/0.png" width="384" height="288">
<polygon label="polyp" source="manual" occluded="1" points="1.00,2.00;3.50,2.00;3.50,9.00" z_order="1"/>
<tag label="abnormal" source="manual"/></image>
<image id="2" name="a/2.png" width="384" height="288"/>
</annotations>"""


def read(folder, text):
    (folder / "a.xml").write_text(text)
    return read_cvat_xml(folder / "a.xml")


def test_an_export_for_video(tmp_path):
    task = read(tmp_path, VIDEO)
    assert (task.name, task.frames, task.start, task.source) == ("case 3", 4, 10, "case3.mp4")
    assert (task.width, task.height, task.labels) == (384, 288, ["polyp"])
    box, mask = task.tracks
    assert list(box.shapes) == [0, 1, 2]
    assert box.shapes[0].points == (1.0, 2.5, 30.0, 40.25)
    assert box.shapes[0].attributes == {"Paris": "Is"}
    assert [shape.keyframe for shape in box.shapes.values()] == [True, False, True]
    assert (box.group, list(box.visible(4))) == (3, [0, 1])
    assert (mask.number, mask.shapes[1].points) == (None, (5, 6, 2, 2, 1, 2, 1))


def test_a_step_of_one_leaves_out_no_frame(tmp_path):
    assert read(tmp_path, VIDEO.replace("<frame_filter>", "<frame_filter>step=1")) == read(tmp_path, VIDEO)


def test_every_visible_mask_of_a_track_counts(tmp_path):
    again = '<mask frame="13" keyframe="1" outside="0" rle="0, 4" left="5" top="6" width="2" height="2"/></track>'
    first, second = VIDEO.rsplit("</track>", 1)
    _, mask = read(tmp_path, first + again + second).tracks
    assert {frame: shape.points for frame, shape in mask.shapes.items()} == {
        1: (5, 6, 2, 2, 1, 2, 1),
        3: (5, 6, 2, 2, 0, 4),
    }


def test_a_track_of_masks_that_are_never_to_be_seen_is_none(tmp_path):
    text = VIDEO.replace('<mask frame="11" keyframe="1" outside="0"', '<mask frame="11" keyframe="1" outside="1"')
    annotations = join_tracks(read(tmp_path, text))
    assert [shape.kind for track in annotations.tracks for shape in track.shapes.values()] == ["box"] * 3


def test_an_export_for_images_in_which_one_was_deleted(tmp_path):
    task = read(tmp_path, IMAGES)
    assert (task.frames, task.images) == (2, ["a/0.png", "a/2.png"])
    (polygon,) = task.tracks
    assert polygon.number is None
    assert polygon.shapes[0].points == (1.0, 2.0, 3.5, 2.0, 3.5, 9.0)
    assert (polygon.shapes[0].occluded, polygon.shapes[0].z_order) == (True, 1)
    assert [tag.label for tag in task.tags[0]] == ["abnormal"]


def test_images_are_in_natural_order_however_cvat_numbers_them(tmp_path):
    track = '<attribute name="track">4</attribute>'
    box = f'<box label="polyp" source="auto" xtl="{{0}}" ytl="0" xbr="{{1}}" ybr="9">{track}</box>'
    image = '<image id="{}" name="a/{}.png" width="384" height="288">{}</image>'
    shown = {number: box.format(number, number + 9) for number in (1, 3)}
    images = [image.format(place, n, shown.get(n, "")) for place, n in enumerate(sorted(range(12), key=str))]
    text = f"{IMAGES[: IMAGES.index('<image')]}{''.join(images)}</annotations>".replace("<size>3", "<size>12")
    (item,) = items_from_annotations(join_tracks(read(tmp_path, text)), ["polyp"])
    assert item["image"] == [f"a/{number}.png" for number in range(12)]
    assert item["box"] == [[[n, 0, n + 9, 9]] if n in (1, 2, 3) else [] for n in range(12)]  # 2 is between 1 and 3


def test_tags_come_from_another_export(tmp_path):
    video, images = read(tmp_path, VIDEO), read(tmp_path, IMAGES)
    with pytest.raises(ValueError, match=r"a\.xml: has 4 frames of 'case3.mp4', but 2 frames of .* where the tags are"):
        merge_tags(video, images)
    with pytest.raises(ValueError, match="but 4 frames of 'other.mp4' where the tags are"):
        merge_tags(video, replace(video, source="other.mp4"))
    images = read(tmp_path, IMAGES.replace('id="2"', 'id="1"').replace("</annotations>", "") + "</annotations>")
    two = read(tmp_path, VIDEO.replace("<size>4<", "<size>3<"))
    more = IMAGES.replace("</annotations>", '<image id="3" name="a/3.png" width="384" height="288"/></annotations>')
    merged = merge_tags(two, read(tmp_path, more))
    assert merged.tracks == two.tracks
    assert list(merged.tags) == [0]
    assert len(images.images) == 2


def test_the_zip_that_cvat_exports(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("annotations.xml", VIDEO)
        archive.writestr("images/0.png", b"")
    assert read_cvat_xml(tmp_path / "a.zip") == read(tmp_path, VIDEO)


def test_a_zip_that_macos_packed_again(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("7/annotations.xml", VIDEO)
        archive.writestr("__MACOSX/7/._annotations.xml", b"\0\5\x16\7")
    assert read_cvat_xml(tmp_path / "a.zip") == read(tmp_path, VIDEO)


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", VIDEO + " " * (1 << 22))
    with pytest.raises(ValueError, match=r"a\.zip: \d+ bytes would unpack to \d+, more than 200 times as much"):
        read_cvat_xml(tmp_path / "a.zip")


def test_more_xml_than_is_read_is_refused_also_in_a_zip(tmp_path, monkeypatch):
    monkeypatch.setattr("endofm_monai.formats.cvat_xml.MAX_BYTES", len(VIDEO) - 1)
    (tmp_path / "a.xml").write_text(VIDEO)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", VIDEO)
    for name in ("a.xml", "a.zip"):
        with pytest.raises(ValueError, match=rf"{name}: has {len(VIDEO)} bytes; XML is read up to {len(VIDEO) - 1}\.$"):
            read_cvat_xml(tmp_path / name)


def test_names_that_xml_cannot_hold_are_written_out(video_task, tmp_path):
    write_cvat_xml(replace(video_task, name="K\udcf6ln\x01", source="K\udcf6ln.mp4"), tmp_path / "a.xml")
    task = read_cvat_xml(tmp_path / "a.xml")
    assert (task.name, task.source) == (r"K\udcf6ln\x01", r"K\udcf6ln.mp4")


def test_what_is_written_is_what_cvat_imports(video_task, tmp_path):
    write_cvat_xml(video_task, tmp_path / "a.xml")
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    # its importer needs these of every shape of a track, and takes the rest for granted
    for shape in (*root.iterfind("track/box"), *root.iterfind("track/polygon")):
        assert {"frame", "keyframe", "outside", "occluded", "z_order"} <= set(shape.attrib)
    assert root.find("track/box").get("xtl") == "10.00"
    assert root.find("track/polygon").get("points") == "5.00,5.00;15.00,5.00;15.00,20.00"
    assert [(image.get("id"), image[0].get("label")) for image in root.iterfind("image")] == [
        ("0", "normal"),
        ("3", "abnormal"),
    ]


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (IMAGES, 'id="2"', 'id="0"', "two images of id 0: 'a/0.png' and 'a/2.png'"),
        (IMAGES, "a/2.png", "a/0.png", "two images of name 'a/0.png': '0' and '2'"),
        (
            VIDEO,
            'frame="11" keyframe="0"',
            'frame="10"',
            r"two shapes of track 0 in frame 10: \('box', 1.0, .* and .*\)",
        ),
        (VIDEO, TRACK, TRACK + TRACK, "two tracks of id 0: 'polyp' and 'polyp'"),
    ],
)
def test_what_is_there_twice_is_named(tmp_path, text, old, new, message):
    with pytest.raises(ValueError, match=rf"a\.xml: [^\n]*has {message}\.$"):
        read(tmp_path, text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotations>", "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><annotations>", "a document type"),
        ("</annotations>", "", "is not valid XML"),
        ("<version>1.1", "<version>1.0", "needs <annotations> of version 1.1"),
        ("<mode>interpolation", "<mode>annotation", 'export it as "CVAT for images 1.1"'),
        ("<frame_filter>", "<frame_filter>step=5", "the task leaves out frames"),
        ('frame="12" keyframe="1" outside="1" occluded="0" xtl', 'frame="14" occluded="0" xtl', "in frame 14, but the"),
        ("rle=", 'rl="" xrle=', "misses 'rle'"),
        ('rle="1, 2, 1"', 'rle="1, 2, 3"', "a mask whose runs do not fill its 2x2 pixels"),
        ('xtl="1.00"', 'xtl="nan"', "a <box> that is not finite"),
        ('xtl="1.00"', 'xtl="1.00" rotation="30.0"', "a rotated box"),
        ("mask", "ellipse", "holds a <ellipse>"),
        ("task>", "project>", "export a task, not a project"),
        ("<size>4<", "<size>2000000000<", "the task has 2000000000 frames from 10 on; expected up to 2000000"),
        ("<size>4<", "<size>-4<", "the task has -4 frames"),
        ("<width>384<", "<width>1000000000<", "has frames of 1000000000x288; expected sides of up to"),
        ('left="5"', 'left="1000000000"', "a mask of 2x2 pixels at 1000000000, 6, beyond its frame of 384x288"),
        ('xtl="1.00"', 'xtl="1e999"', "a <box> that is not finite"),
        ("<size>4<", f"<size>{'4' * 5000}<", "that can be used"),
    ],
)
def test_bad_files_are_named(tmp_path, old, new, message):
    text = VIDEO.replace(old, new)
    assert text != VIDEO
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "a.xml: " in str(caught.value)


def test_a_job_is_named_by_its_file(tmp_path, video_task):
    write_cvat_xml(video_task, tmp_path / "job 7.xml")
    text = (tmp_path / "job 7.xml").read_text().replace("<task>", "<job>")
    size = text[text.index("<original_size>") : text.index("</original_size>") + 16]
    for part in (size, "<name>a</name>", "<source>a.mp4</source>"):  # a job's size stands beside it
        text = text.replace(part, "", 1)
    (tmp_path / "job 7.xml").write_text(text.replace("</task>", f"</job>{size}"))
    job = read_cvat_xml(tmp_path / "job 7.xml")
    assert (job.name, job.width, job.height, job.frames) == ("job 7", 96, 64, 8)
    assert job.tracks == video_task.tracks


def test_the_sizes_of_images_count_beside_that_of_the_task(tmp_path):
    size = "<original_size><width>384</width><height>288</height></original_size>"
    text = IMAGES.replace("</task>", f"{size}</task>")
    assert read(tmp_path, text).width == 384
    with pytest.raises(ValueError, match=r"must have frames of one size, found .*'384', '288'.*'768', '576'"):
        read(tmp_path, text.replace('2.png" width="384" height="288"', '2.png" width="768" height="576"'))


def test_a_job_of_images_is_a_part_of_the_task(tmp_path, caplog):
    text = IMAGES.replace("task>", "job>").replace("<size>3<", "<size>2</size><start_frame>7</start_frame><size>2<")
    job = read(tmp_path, text.replace('id="0"', 'id="7"').replace('id="2"', 'id="8"'))
    assert (job.name, job.images, job.start, caplog.text) == ("frames", ["a/0.png", "a/2.png"], 0, "")
    read(tmp_path, text.replace('id="0"', 'id="7"').replace('id="2"', 'id="9"').replace("<size>2<", "<size>3<"))
    assert "1 frames were deleted or are missing (8)" in caplog.text


def test_a_box_that_was_turned_all_around_is_upright(tmp_path):
    assert (
        read(tmp_path, VIDEO.replace('xtl="1.00"', 'xtl="1.00" rotation="360.00"')).tracks
        == read(tmp_path, VIDEO).tracks
    )


def test_tracks_of_one_number_in_two_folders_are_two(tmp_path):
    box = '<box label="polyp" xtl="{0}" ytl="0" xbr="{1}" ybr="9"><attribute name="track">0</attribute></box>'
    drawn = {1: box.format(2, 9), 3: box.format(6, 13), 5: box.format(30, 37)}  # in a/1, a/3 and b/1
    images = [
        f'<image id="{n}" name="{"ab"[n // 4]}/{n % 4}.png" width="40" height="30">{drawn.get(n, "")}</image>'
        for n in range(8)
    ]
    text = f"{IMAGES[: IMAGES.index('<image')]}{''.join(images)}</annotations>".replace("<size>3", "<size>8")
    first, second = items_from_annotations(join_tracks(read(tmp_path, text)), ["polyp"])
    assert first["box"] == [[], [[2, 0, 9, 9]], [[4, 0, 11, 9]], [[6, 0, 13, 9]]]
    assert second["box"] == [[], [[30, 0, 37, 9]], [], []]
