"""Real processes: runs that are killed go on bit for bit, and two processes train what one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from recurra.cells import ElmanCell, EmbeddingCell
from recurra.core import CrossEntropy, MeanSquaredError
from recurra.core.rule import Chunk
from recurra.estimators import LanguageModel
from recurra.learning import TruncatedBPTT
from recurra.training import Batches, TokenStream, TrainSettings, fit, train
from recurra.wrappers import Readout, Stack

ROOT = Path(__file__).resolve().parent.parent
TEXT = "to be or not to be, that is the question:\n" * 40
MODEL: dict[str, Any] = {
    "hidden_size": 10, "embedding_size": 6, "num_steps": 8, "batch_size": 4, "sample_length": 9, "num_epochs": 2,
    "checkpoint_seconds": 0.0, "num_validations": 9, "weight_drop": 0.2, "precision": "bfloat16",
}  # fmt: skip

CHILD = """
import json, os, sys, time
import torch
torch.set_num_threads(1)
from recurra.estimators import LanguageModel
text, arguments, folder, pause, resume = json.loads(sys.argv[1])
def tell(progress):
    print(progress.update, flush=True)
    time.sleep(pause)
LanguageModel(**arguments).fit(text, text[:200], tell, folder=folder, resume=resume)
"""


def python(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, *arguments], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    )


def until(child: subprocess.Popen[str], update: int) -> None:
    """Wait for a child to have made so many updates."""
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= update:
            return
    raise AssertionError(child.communicate()[1])


def test_a_run_that_is_killed_several_times_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    wanted = LanguageModel(**MODEL).fit(TEXT, TEXT[:200], folder=tmp_path / "whole")
    last = wanted.plan_["num_updates"]
    for i, update in enumerate((3, last // 2)):
        child = python("-c", CHILD, json.dumps([TEXT, MODEL, str(tmp_path / "run"), 0.003 * (1 - i), True]))
        until(child, update)
        time.sleep(0.004)  # anywhere in an update, a checkpoint, a validation
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert config["weights_sha256"] is None
        assert config["record"]["plan"]["num_updates"] == last
    with pytest.raises(ValueError, match="holds a training that is not finished"):
        LanguageModel.load(tmp_path / "run")
    found = LanguageModel(**MODEL).fit(TEXT, TEXT[:200], folder=tmp_path / "run", resume=True)
    names = ("model.safetensors", "samples.txt")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert found.record_["validation"] == wanted.record_["validation"]
    assert [r["train_nats_per_char"] for r in found.history_] == [r["train_nats_per_char"] for r in wanted.history_]
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert left == {"config.json", "model.safetensors", "metrics.csv", "samples.txt", "events"}


# --- several processes ---


def network() -> Stack:
    generator = torch.Generator().manual_seed(0)
    inner = Readout(ElmanCell(4, 5, generator=generator), 7, generator=generator)
    return Stack(EmbeddingCell(7, 4, generator=generator), inner).double()


def regression() -> Readout:
    generator = torch.Generator().manual_seed(0)
    return Readout(ElmanCell(3, 5, generator=generator), 2, generator=generator).double()


def sequences() -> tuple[list[Tensor], list[Tensor]]:
    xs = [torch.randn(3 + i % 5, 3, generator=torch.Generator().manual_seed(i)).double() for i in range(19)]
    return xs, [x[:, :2].cumsum(0) for x in xs]


def cases(folder: Path, first: int = 0, size: int = 1) -> dict[str, Tensor]:
    """What the runs leave, in one process or, each with its part, in several."""
    found: dict[str, Tensor] = {}
    tokens = torch.randint(7, (420,), generator=torch.Generator().manual_seed(0))
    stream = TokenStream(tokens, 6, 7)
    settings = TrainSettings(num_epochs=2, lr=0.02, clip_norm=0.3, weight_average=0.9, checkpoint_seconds=0.0)
    net = network()
    validate = lambda module: {"size": float(sum(p.abs().sum() for p in module.parameters()))}  # noqa: E731
    train(net, stream, CrossEntropy(), settings, rule=TruncatedBPTT(), validate=validate)
    found |= {f"stream.{n}": t for n, t in net.state_dict().items()}

    net = regression()
    xs, ys = sequences()
    train(
        net, Batches(xs, ys, 4), MeanSquaredError(), TrainSettings(num_epochs=3, lr=0.02, accumulate=2, clip_value=0.1)
    )
    found |= {f"batches.{n}": t for n, t in net.state_dict().items()}

    net = regression()
    chunks = list(Batches(xs, ys, 4, shuffle=False).epoch(0))[:4]
    mine = [_half(c, first, size) for c in chunks]
    fit(net, mine, MeanSquaredError(), torch.optim.Adam, num_epochs=3, clip_norm=0.5)
    found |= {f"fit.{n}": t for n, t in net.state_dict().items()}

    net = network().float()  # numbers of two types travel: directions in float32, their sums in float64
    train(net, stream, CrossEntropy(), TrainSettings(num_updates=3), rule=TruncatedBPTT())
    found |= {f"float32.{n}": t for n, t in net.state_dict().items()}

    for stop in (4, None):  # interrupted, and gone on with
        net = network()
        train(
            net, stream, CrossEntropy(), settings, rule=TruncatedBPTT(), validate=validate, folder=folder, resume=True,
            on_progress=lambda p, stop=stop: p.update == stop,
        )  # fmt: skip
    found |= {f"resumed.{n}": t for n, t in net.state_dict().items()}
    return {name: t.detach().clone() for name, t in found.items()}


def _half(chunk: Chunk, first: int, size: int) -> Chunk:
    rows = slice(first * 4 // size, (first + 1) * 4 // size)
    lengths = chunk.controls.lengths
    controls = chunk.controls._replace(lengths=None if lengths is None else lengths[rows])
    return Chunk(chunk.xs[:, rows], chunk.targets[:, rows], None, controls)


WORKER = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_train_processes as here
from safetensors.torch import save_file
rank = int(os.environ["RANK"])
save_file(here.cases(Path(sys.argv[2], "run"), rank, 2), Path(sys.argv[2], f"rank{rank}.safetensors"))
"""


def test_two_processes_train_what_one_does_with_their_batches_together(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "worker.py")]
    child = python(*line, str(Path(__file__).parent), str(tmp_path))
    wanted = cases(tmp_path / "alone")
    said = child.communicate(timeout=300)[1]
    assert child.returncode == 0, said
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == wanted.keys()
    for name, t in wanted.items():
        assert torch.equal(first[name], second[name]), name
        near = 1e-10 if t.dtype == torch.float64 else 1e-3
        torch.testing.assert_close(first[name], t, rtol=0, atol=near, msg=lambda m, name=name: f"{name}: {m}")
    for name in (n for n in first if n.startswith("resumed.")):
        assert torch.equal(first[name], first[name.replace("resumed", "stream")])
