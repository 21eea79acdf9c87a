import csv
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sb3_permakey.keypoints import PermaKeyConfig
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.distributed import Workers
from sb3_permakey.pretraining.trainer import pretrain

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run_in_two_processes(script: str, folder: Path, *arguments: str) -> None:
    path = folder / "run.py"
    path.write_text(f"import torch\ntorch.set_num_threads(1)\n{script}")
    done = subprocess.run([*TORCHRUN, str(path), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    layers = []
    for channels in (3, 4, 4):
        layers += [nn.Conv2d(channels, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers).double()


def gradients_and_statistics(model: nn.Module, workers: Workers) -> list[np.ndarray]:
    """What one step leaves behind: gradients, then BatchNorm's statistics."""
    images = np.random.default_rng(0).random((8, 3, 12, 12))
    compute = workers.wrap(model, lambda batch: model(batch).pow(3).mean())
    compute(torch.from_numpy(workers.shard(images))).backward()
    return [parameter.grad.numpy() for parameter in model.parameters()] + [b.numpy() for b in model.buffers()]


TWO_PROCESSES = f"""
import sys
from pathlib import Path
import numpy as np
from torch import nn
from sb3_permakey.pretraining.distributed import Workers, share_batch_norm
{inspect.getsource(convolutions)}
{inspect.getsource(gradients_and_statistics)}
workers = Workers(torch.device("cpu"))
model = convolutions()
share_batch_norm(model)
values = gradients_and_statistics(model, workers)
if workers.is_first:
    np.savez(sys.argv[1], *values)
workers.leave()
if (threads := Path("/proc/self/task")).exists():
    names = [(thread / "comm").read_text() for thread in threads.iterdir()]
    assert not any("gloo" in name for name in names), names
"""


def test_gradients_and_batch_norm_of_two_processes_are_those_of_one(tmp_path):
    run_in_two_processes(TWO_PROCESSES, tmp_path, str(tmp_path / "two.npz"))
    together = np.load(tmp_path / "two.npz")
    alone = gradients_and_statistics(convolutions(), Workers(torch.device("cpu")))
    assert len(together) == len(alone)
    for one, other in zip(together.values(), alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


# Adam's first updates are signs of gradients, which blow rounding up; with these rates to two fifths of the tolerance
# at most. Gradients, or statistics of BatchNorm, that each process keeps to itself move some loss by over twice that.
@pytest.mark.parametrize(
    ("method", "learning_rate", "tolerance"), [("permakey", 2e-5, 2e-2), ("transporter", 1e-3, 2e-3)]
)
def test_two_processes_lose_what_one_loses(frame_store, tmp_path, method, learning_rate, tolerance):
    settings = {"batch_size": 8, "max_steps": 3, "log_every_steps": 1, "precision": "float32", "method": method}
    settings |= {"learning_rate": learning_rate}
    if method == "permakey":
        settings |= {"schedule": "staged", "lspn_stride": 2}
    layers = (1,) if method == "permakey" else PermaKeyConfig.layers
    model = PermaKeyConfig(num_keypoints=3, layers=layers)
    alone, together = tmp_path / "alone.safetensors", tmp_path / "together.safetensors"
    pretrain(PretrainConfig(frames=frame_store.path, out=alone, model=model, **settings))
    flags = {"frames": frame_store.path, "out": together, "num-keypoints": 3, **settings}
    arguments = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    arguments += ["--layers", *map(str, layers)]
    run_in_two_processes("from sb3_permakey.cli import main; main()", tmp_path, "pretrain", *arguments)
    rows_alone, rows_together = (losses(path) for path in (alone, together))
    assert [(row["step"], row["split"]) for row in rows_together] == [(row["step"], row["split"]) for row in rows_alone]
    assert rows_alone
    for one, other in zip(rows_together, rows_alone, strict=True):
        # Before the first update there is nothing but rounding.
        allowed = 2e-4 if one["step"] == "1" else tolerance
        for name in one.keys() - {"split"}:
            assert float(one[name]) == pytest.approx(float(other[name]), rel=allowed), (name, one, other)


def losses(checkpoint: Path) -> list[dict[str, str]]:
    with (checkpoint.with_suffix(".pretraining") / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def test_one_process_needs_no_group():
    workers = Workers(torch.device("cpu"))
    assert workers.is_first
    assert workers.count == 1
    assert list(workers.shard(np.arange(5))) == [0, 1, 2, 3, 4]
    assert workers.agree(True)
    assert not workers.agree(False)
