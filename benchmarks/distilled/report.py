"""The table of students beside their teachers: python -m benchmarks.distilled.report"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.schema import ResultSchema
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import shipped_name
from benchmarks.speed.noisy import noisy_table
from sb3_permakey.files import write_atomically

NOTES = Path(__file__).with_name("notes.md")
RESULTS = Path("benchmarks/results/distilled")
SCHEMAS = (
    ResultSchema(
        "distilled/*.json",
        {
            "game": str,
            "noise": str,
            "seed": int,
            "teacher": str,
            "num_keypoints": int,
            "training": dict,
            "scores": dict,
            "explained_variance": dict,
        },
    ),
    ResultSchema(
        "distilled_speed.json",
        {"rows": list, "threads": int, "matrix_product_gflops": dict, "copy_gbytes_per_s": float},
    ),
)
FRAMES = {"clean": "clean", "both": "with bars"}
READINGS = {"peaks": "peaks", "contrast": "peaks of the contrast", "steady": "steady peaks"}


@dataclass(frozen=True)
class ReportConfig:
    """Write the table."""

    results: Path = RESULTS
    """Where the JSON files are."""
    out: Path = Path("benchmarks/results/distilled.md")
    """Markdown file to write."""
    speed: Path = Path("benchmarks/results/distilled_speed.json")
    """What `benchmarks.speed detectors` measured of them."""
    noisy: Path = Path("benchmarks/results/noisy_speed.json")
    """What `benchmarks.speed noisy` measured of agents that act on them."""


def value(scores: dict[str, Any], name: str) -> float | None:
    """A score of all keypoints; of "motion_error_px" the mean over the kinds of objects that have one."""
    if name == "motion_error_px":
        errors = [kind[name]["value"] for kind in scores["kinds"].values() if kind[name]["value"] is not None]
        return float(np.mean(errors)) if errors else None
    found: float | None = scores["all"][name]["value"]
    return found


def pair(teacher: dict[str, Any], student: dict[str, Any], name: str) -> str:
    """The teacher's score and the student's."""
    values = (value(scores, name) for scores in (teacher, student))
    return " / ".join("-" if one is None else f"{one:.2f}" for one in values)


def rows(result: dict[str, Any]) -> list[list[str]]:
    """A row for each kind of frames and each reading."""
    return [
        [
            shipped_name(result["game"], "distilled", result["noise"]),
            FRAMES[kind],
            READINGS[reading],
            *(
                pair(of_kind["teacher"][reading], of_kind["student"][reading], name)
                for name in ("f1", "precision", "recall", "tracking", "motion_error_px")
            ),
            f"{result['explained_variance'][kind]:.2f}" if reading == "peaks" else "",
        ]
        for kind, of_kind in result["scores"].items()
        for reading in of_kind["teacher"]
    ]


def speed_table(speed: dict[str, Any]) -> list[str]:
    """Milliseconds a frame of each detector: measured, the best of all rounds, and the floors of each."""
    titles = ["game", "detector", "frames in a call", "ms a frame", "best", "arithmetic", "bytes"]
    return table(
        titles,
        [
            [
                row["game"],
                f"{row['detector']}, {row['precision']}",
                str(row["batch_size"]),
                f"{1000 / row['frames_per_s']:.2f}",
                f"{1000 / row['best_frames_per_s']:.2f}",
                f"{row['arithmetic_ms']:.2f}",
                f"{row['traffic_ms']:.2f}",
            ]
            for row in speed["rows"]
        ],
    )


def measured_by(result: dict[str, Any]) -> list[str]:
    """Lines under a table of speed."""
    return ["", f"{result['threads']} thread of {result['machine']['cpu']}: `{result['command']}`"]


def report(
    results: list[dict[str, Any]], speed: dict[str, Any] | None = None, noisy: dict[str, Any] | None = None
) -> str:
    """The whole document."""
    titles = ["student", "frames", "reading", "F1", "precision", "recall", "tracking", "motion error, px", "features"]
    minutes = [result["training"]["minutes"] for result in results]
    return filled(
        NOTES,
        table=table(titles, [row for result in results for row in rows(result)]) if results else None,
        training=[
            f"{len(results)} student(s), {min(minutes):.0f} to {max(minutes):.0f} minutes each on one thread of "
            f"{results[0]['machine']['cpu']}, which other processes shared; one of them: "
            f"`{results[0]['training']['command']}`"
        ]
        if results
        else None,
        speed=[*speed_table(speed), *measured_by(speed)] if speed else None,
        noisy=[*noisy_table(noisy["games"]), *measured_by(noisy)] if noisy else None,
    )


def write_report(config: ReportConfig) -> None:
    """Write the table."""
    results = [json.loads(path.read_text()) for path in sorted(config.results.glob("*.json"))]
    speed, noisy = (json.loads(path.read_text()) if path.exists() else None for path in (config.speed, config.noisy))
    write_atomically(config.out, report(results, speed, noisy).encode())
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("distilled.report", ReportConfig, write_report)


if __name__ == "__main__":
    command()
