# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from endofm_monai.data import clip_images, load_datalist, split_frames
from endofm_monai.preparation import SECTIONS, leakage, run_from_command_line, run_parallel
from endofm_monai.preparation.sources import attempt
from endofm_monai.utils import check_number, read_json, sha256


def check_leakage(
    *datalists: str,
    output: str = "leakage.html",
    max_distance: int = leakage.MAX_DISTANCE,
    min_likeness: float = leakage.MIN_LIKENESS,
    min_frames: int = 1,
    strict: bool = False,
    **parallel: Any,
) -> str:
    """Find clips that are in several datasets, or in several sections of one: copies, and frames that look alike.

    Args:
        datalists: JSON files of prepared datasets; of another one, whose clips lie beside the file.
        output: HTML page to write, whose path is given back.
        max_distance: number of bits, of 256, in which the perceptual hashes of frames that look alike may differ.
        min_likeness: correlation of the details of one of the closest frames, at most 1, that makes a pair.
        min_frames: number of such frames that make a pair of clips.
        strict: end with an error when there is a pair.
        parallel: ``workers``, ``backend`` and ``scheduler``, see docs/datasets.md.
    """
    for key, value in (("max_distance", max_distance), ("min_likeness", min_likeness), ("min_frames", min_frames)):
        check_number(key, value)
    folders = Counter(Path(datalist).parent.name for datalist in {*datalists})  # lists in folders of one name stay two
    names = {datalist: datalist if folders[name := Path(datalist).parent.name] > 1 else name for datalist in datalists}
    clips = [clip for datalist, name in names.items() for clip in read_clips(Path(datalist), name)]
    groups = Counter(group for _, group, _ in clips)
    if len(groups) < 2:
        given = ", ".join(datalists) or "no list"
        raise ValueError(f"{given}: need at least two sets or sections to compare, found {len(groups)}")
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    problems, hashes = [], []
    for owner, digests, found in run_parallel(hash_all, clips, description="hashing", **parallel):
        for digest in digests:
            owners[digest].add(owner)
        if isinstance(found, str):
            problems.append(found)
        else:
            hashes.append(found)
    hashes.sort(key=lambda clip: clip.clip)
    pairs = (pair for same in owners.values() for pair in combinations(sorted(same), 2))
    shared = Counter((first[1], second[1]) for first, second in pairs if first[0] != second[0])
    exact = [(first, second, files) for (first, second), files in shared.most_common()]

    candidates = [(leakage.confirm_match, match) for match in leakage.find_matches(hashes, max_distance, min_frames)]
    looked_at = list(run_parallel(attempt, candidates, description="looking at pairs", **parallel))
    problems += [match for match in looked_at if isinstance(match, str)]
    matches = [match for match in looked_at if isinstance(match, leakage.Match) and match.likeness >= min_likeness]
    matches.sort(key=lambda match: (-match.likeness, match.first.clip, match.second.clip))
    leakage.write_report(Path(output), dict(groups), exact, matches, sorted(problems))
    summary = f"{len(exact)} pairs of clips share files, {len(matches)} have frames that look alike: see {output}"
    print(summary)
    if strict and (exact or matches):
        raise ValueError(summary)
    return output


def read_clips(datalist: Path, name: str) -> list[tuple[str, str, Any]]:
    """List the clips of a datalist: what each is called in the report, its set and section, and what to open."""
    manifest = datalist.parent / "manifest.json"
    about = read_json(manifest, dict) if manifest.exists() else {}
    folder = datalist.parent / about.get("dataset_dir", ".")
    content = read_json(datalist, dict)
    clips = []
    for section in (section for section in SECTIONS if content.get(section)):
        group = f"{name}/{section}"
        for item in load_datalist(folder, datalist, section):
            path = Path(ensure_tuple(item["image"])[0])
            clips.append((f"{group}: {path.relative_to(folder.resolve())}", group, item["image"]))
    return clips


def hash_all(name: str, group: str, image: Any) -> tuple[tuple[str, str], list[str], leakage.ClipHashes | str]:
    """Give group and name of a clip, and hash its files and its frames; or say why these cannot be hashed."""
    whole = image if isinstance(image, list) else split_frames(image)[0]
    digests = [sha256([file]) for file in clip_images(whole)]
    return (group, name), digests, attempt(leakage.hash_clip, name, group, image)


if __name__ == "__main__":
    run_from_command_line(check_leakage)
