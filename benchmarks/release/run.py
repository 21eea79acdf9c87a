"""Put checkpoints of `benchmarks.keypoints` and `.distilled` into the package: python -m benchmarks.release --update

Of every finished run with seed 0 it writes what detection needs, as float16, to sb3_permakey/checkpoints, scores what
was written (rounding and all; students have been) on the benchmark's frames, and enters it in the index and in
docs/checkpoints.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.distilled.report import RESULTS as STUDENTS
from benchmarks.distilled.run import READ, DistilledBenchmark
from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import READINGS, RESULTS, SHIPPED_SEED, shipped_name
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints import (
    ShippedCheckpoint,
    load_checkpoint,
    model_fingerprint,
    save_for_detection,
    shipped_checkpoints,
)
from sb3_permakey.keypoints.checkpoint import GAME
from sb3_permakey.keypoints.shipped import FOLDER, INDEX_FORMAT, INDEX_VERSION, OF_TEACHER, TEACHERS
from sb3_permakey.scores import ScoreConfig, score

NOTES = Path(__file__).with_name("notes.md")
SHIPPED_SCORES = ("precision", "recall", "f1", "coverage", "distractor_rate")
MOST_BYTES = {"permakey": 4_500_000, "transporter": 4_500_000, "distilled": 300_000}
READ_BY = {**READINGS, "distilled": READ}
"""How each method's checkpoints are read."""
USUAL_FOLDERS = (DistilledBenchmark.frames_folder, DistilledBenchmark.folder)
"""Where frames and students are for who runs the benchmarks without naming folders."""


@dataclass(frozen=True)
class ShipConfig:
    """Ship the checkpoints of finished runs."""

    folder: Path = Path("runs/keypoints")
    """Where the benchmark's checkpoints are."""
    results: Path = RESULTS
    """Where its JSON files are."""
    student_folder: Path = DistilledBenchmark.folder
    """Where the students are."""
    students: Path = STUDENTS
    """Where their JSON files are."""
    docs: Path = Path("docs/checkpoints.md")
    """Markdown file that lists the package's checkpoints."""


def name_of(result: dict[str, Any]) -> str:
    """Name of a run's checkpoint in the package."""
    return shipped_name(result["game"], method_of(result), result["noise"])


def method_of(result: dict[str, Any]) -> str:
    """A run's method, as the index calls it."""
    return "distilled" if "teacher" in result else str(result["method"])


def command_of(result: dict[str, Any]) -> str:
    """What makes a run's checkpoint, in the usual folders: of a teacher that is not the package's, its student too."""
    if Path(result.get("teacher", "")).suffix:
        return f"python -m benchmarks.release.build --games {result['game']}"
    command = str(result["training"]["command"])
    for folder in USUAL_FOLDERS:
        command = re.sub(rf"\S*/{folder.name}/", f"{folder}/", command)
    return command


def prefix(reading: str) -> str:
    """What a reading's scores are called by in the index: those of the PointNet have their plain names."""
    return "" if reading == "pointnet" else f"{reading}_"


def missing_scores(checkpoint: ShippedCheckpoint, result: dict[str, Any]) -> dict[str, float]:
    """A shipped checkpoint's scores by the readings that the index does not have.

    Students were scored as they are shipped; of the others the benchmark scored what training left.
    """
    scores = {}
    for reading, config in READ_BY[checkpoint.method].items():
        if f"{prefix(reading)}f1" in checkpoint.scores:
            continue
        if checkpoint.method == "distilled":
            if not result["scores"]:
                break
            figures = result["scores"][result["noise"]]["student"][reading]["all"]
        else:
            scored = score(
                ScoreConfig((str(checkpoint.path),), checkpoint.game, distractor=checkpoint.noise, readout=config)
            )
            figures = scored["scores"]["keypoints"]
        scores |= {
            f"{prefix(reading)}{key}": round(figures[key]["value"], 3)
            for key in SHIPPED_SCORES
            if figures[key]["value"] is not None
        }
    return scores


def ship(result: dict[str, Any], trained: Path) -> ShippedCheckpoint:
    """Write a run's checkpoint into the package; not scored yet."""
    name = name_of(result)
    metadata = {"command": command_of(result), "commit": str(result["commit"]), GAME: result["game"]}
    folder = FOLDER / TEACHERS if name.endswith(OF_TEACHER) else FOLDER
    path = save_for_detection(load_checkpoint(trained), folder / f"{name}.safetensors", metadata=metadata)
    most = MOST_BYTES[method_of(result)]
    if path.stat().st_size > most:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {most}")
    return ShippedCheckpoint(
        name=name,
        path=path,
        game=result["game"],
        method=method_of(result),
        noise=None if result["noise"] == "clean" else result["noise"],
        num_keypoints=result["num_keypoints"],
        command=command_of(result),
        minutes=round(result["training"]["minutes"], 1),
        scores={},
        fingerprint=model_fingerprint(load_checkpoint(path)),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def write_index(checkpoints: list[ShippedCheckpoint]) -> None:
    """Write the package's index."""
    entries = {}
    for checkpoint in sorted(checkpoints, key=lambda one: one.name):
        entry = asdict(checkpoint)
        del entry["name"], entry["path"]
        entries[checkpoint.name] = entry
    write_json(FOLDER / "index.json", {"format": INDEX_FORMAT, "version": INDEX_VERSION, "checkpoints": entries})


def document(checkpoints: list[ShippedCheckpoint]) -> str:
    """The page of the documentation."""
    names = ("precision", "recall", "f1", "peaks_precision", "peaks_recall", "peaks_f1", "contrast_f1")
    titles = ["precision", "recall", "F1", "peaks: precision", "recall", "F1", "contrast: F1"]
    rows = []
    for one in checkpoints:
        cells = [f"{one.scores[name]:.2f}" if name in one.scores else "-" for name in names]
        rows.append([one.name, str(one.num_keypoints), one.noise or "-", *cells, f"{one.minutes:.0f}"])
    return filled(
        NOTES,
        scores=table(["name", "K", "bars", *titles, "minutes"], rows),
        commands=[f"- {one.name}: `{one.command}`" for one in checkpoints],
    )


def main(config: ShipConfig) -> None:
    """Ship what is finished and not shipped yet, score what is not scored yet."""
    found = {checkpoint.name: checkpoint for checkpoint in shipped_checkpoints()}
    folders = ((config.results, config.folder), (config.students, config.student_folder))
    finished = [
        (path, folder) for results, folder in folders for path in sorted(results.glob(f"*-{SHIPPED_SEED}.json"))
    ]
    for path, folder in finished:
        result = json.loads(path.read_text())
        shipped, trained = found.get(name_of(result)), folder / path.with_suffix(".safetensors").name
        if shipped is None and not trained.exists():
            print(f"{name_of(result)} is left out: there is no {trained}")
            continue
        if shipped is None or shipped.command != command_of(result):
            shipped = ship(result, trained)
        whole = replace(shipped, scores={**shipped.scores, **missing_scores(shipped, result)})
        if found.get(whole.name) != whole:
            found[whole.name] = whole
            write_index(list(found.values()))
            print(f"{whole.path.name}: {whole.scores}", flush=True)
    write_atomically(config.docs, document(shipped_checkpoints()).encode())


def command() -> None:
    """The command line."""
    run_command("release", ShipConfig, main, only_update=True)


if __name__ == "__main__":
    command()
