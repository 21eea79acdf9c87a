import json
from pathlib import Path

from benchmarks.variants_report import report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def write(folder, game, variants):
    folder.mkdir(parents=True, exist_ok=True)
    result = {"game": game, "command": f"variants.py --game {game}", "commit": "abc", "variants": variants}
    (folder / f"{game.lower()}.json").write_text(json.dumps(result))


def test_games_stand_side_by_side(tmp_path):
    named = {"f1": {"value": 0.5, "low": 0.4}, "tracking": {"value": 0.25}}
    listed = {"f1": [0.75, 0.7, 0.8], "tracking": [0.75, 0.0, 1.0]}
    write(tmp_path / "feature_variants", "MsPacman", {"as benchmarked": named, "random encoder": named})
    write(tmp_path / "feature_variants", "Seaquest", {"as benchmarked": listed})
    text = report(tmp_path)
    assert "| variant | MsPacman | Seaquest | mean | mean tracking |" in text
    assert "| as benchmarked | 0.50 | 0.75 | 0.62 | 0.50 |" in text
    assert "| random encoder | 0.50 | - | - | - |" in text
    assert "- Seaquest: `variants.py --game Seaquest`, commit abc" in text
    assert "## PointNet" not in text


def test_report_is_up_to_date():
    assert (RESULTS / "variants.md").read_text() == report(RESULTS)
    peaks = [json.loads(path.read_text())["variants"] for path in (RESULTS / "peak_variants").glob("*.json")]
    used = "first layer, 5 px"
    for name in peaks[0]:
        assert name == used or any(game[name]["f1"][0] < game[used]["f1"][0] for game in peaks)
