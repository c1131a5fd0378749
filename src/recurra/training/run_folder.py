"""What a run keeps in its folder: checkpoints that hold all of its state, and logs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core import tree
from ..core.checks import sentence
from . import checkpoint
from .logs import Logs
from .update import wide

if TYPE_CHECKING:
    from .train import Training

INTERRUPTED, ASKED = "interrupted", "asked to stop"
STOPPED_FROM_OUTSIDE = (INTERRUPTED, ASKED)  # such a run may go on
FREE = ("device", "checkpoint_seconds")  # settings that may be others when a run goes on


class RunFolder:
    """The folder of one `Training`; without a folder it does nothing.

    Args:
        run: whose state is saved.
        folder: None for none.
    """

    def __init__(self, run: Training, folder: str | os.PathLike[str] | None) -> None:
        self.run = run
        self.path = None if folder is None else Path(folder)
        self.logs: Logs | None = None
        self.saved_at = time.perf_counter()
        self.saving_seconds = 0.0

    def check_free(self) -> None:
        """A new run must not stand beside the checkpoints of another."""
        if self.path is not None and self.run.place.is_first and checkpoint.checkpoints(self.path):
            hint = "Go on with resume=True, or choose another folder."
            got = f"{self.path} with checkpoints"
            raise FileExistsError(sentence(self.run.where, "folder", "new or empty", got, hint))

    # --- logs ---

    def open_logs(self) -> None:
        """Begin them."""
        if self.path is not None and self.run.place.is_first:
            try:
                self.logs = Logs(self.path, self.run.num_done)
            except OSError as error:
                self.run.note(f"There are no logs in {self.path}: {error.strerror or error}.")

    def log(self, write: Callable[[Logs], None]) -> None:
        """Write a log; a disk that is full ends the logs, not the run."""
        if self.logs is None:
            return
        try:
            write(self.logs)
        except OSError as error:
            self.close_logs()
            reason = error.strerror or error
            self.run.note(f"The logs in {self.path} end at update {self.run.num_done:,}: {reason}.")

    def close_logs(self) -> None:
        """End them."""
        if self.logs is not None:
            with contextlib.suppress(OSError):
                self.logs.close()
            self.logs = None

    # --- saving ---

    def is_time(self, end_of_epoch: bool) -> bool:
        """Every so many seconds, and at the end of an epoch if that takes little of the time."""
        if self.path is None:
            return False
        since = time.perf_counter() - self.saved_at
        often = self.run.settings.checkpoint_seconds
        return since >= often or (end_of_epoch and self.saving_seconds < 0.05 * since)

    def save(self, *, must: bool) -> None:
        """Write a checkpoint; of several processes each writes its own part, the first one last.

        Args:
            must: raise where the folder cannot take it; else a note is made, and the run goes on.
        """
        if self.path is None:
            return
        begin, run = time.perf_counter(), self.run
        failure: OSError | None = None
        if not run.place.is_first:
            try:
                checkpoint.write_checkpoint(self.path, run.num_done, *self._own_state(), rank=run.place.rank)
            except OSError as error:
                failure = error
        whole = run.place.all(failure is None)
        if run.place.is_first and run.is_finite():
            try:
                if not whole:
                    raise OSError("another process could not write its part")
                checkpoint.write_checkpoint(self.path, run.num_done, *self._state())
            except OSError as error:
                failure = error
        self.saved_at = time.perf_counter()
        self.saving_seconds = self.saved_at - begin
        if failure is None:
            return
        text = f"{run.where}: the folder {self.path} cannot take a checkpoint: {failure.strerror or failure}."
        if must:
            kept = checkpoint.checkpoints(self.path)
            hint = "The last checkpoint stays; make room and resume." if kept else "Make room, or name another folder."
            raise type(failure)(f"{text} {hint}") from None
        if text not in run.plan["notes"]:
            run.note(text)

    def _own_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What each process has for itself."""
        tensors: dict[str, Tensor] = {}
        carry = checkpoint.pack(self.run.carry, tensors, "carry")
        return {"carry": carry, "rng": checkpoint.pack(self.run.rng, tensors, "rng")}, tensors

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that a run is, as JSON and tensors."""
        run = self.run
        own, tensors = self._own_state()
        tensors |= checkpoint.with_prefix("weights", run.module.state_dict().items())
        tensors |= checkpoint.with_prefix("average", (run.average or {}).items())
        state: dict[str, Any] = {
            "fingerprint": run.fingerprint,
            "settings": dataclasses.asdict(run.settings),
            "plan": run.plan,
            "history": run.history,
            "memo": run.memo,
            "num_done": run.num_done,
            "num_stops": run.num_stops,
            "worse": run.worse,
            "position": [run.epoch, run.chunk],
            "recent": list(run.recent),
            "stopped": run.stopped,
            "seconds": run.elapsed(),
            "best": None if run.best is None else list(run.best[:2]),
            "optimizer": run.updater.pack(tensors),
            **own,
        }
        if run.best is not None:
            tensors |= checkpoint.with_prefix("best", run.best[2].items())
        return state, tensors

    # --- going on ---

    def restore(self) -> bool:
        """Go on from the newest whole checkpoint; False where there is none at all."""
        if self.path is None:
            return False
        run, begun = self.run, self.run.started
        reasons: list[str] = []
        for path in run.place.share(checkpoint.checkpoints(self.path)):
            reason = ""
            try:
                state, tensors = checkpoint.read_checkpoint(path)
                self._check_same(state)
                run.started = begun - state["seconds"]
                self._take(state, tensors)
                if not run.place.is_first:
                    state, tensors = checkpoint.read_checkpoint(checkpoint.part_of(path, run.place.rank))
                self._take_own(state, tensors)
            except (checkpoint.DamagedCheckpoint, OSError) as error:
                reason = f"{path} is damaged: {error}"
            except (KeyError, TypeError, RuntimeError) as error:
                reason = f"{path} does not fit this run: {str(error).splitlines()[0]}"
            if run.place.all(not reason):
                for text in reasons:
                    run.note(f"The checkpoint {text}; the run goes on from update {run.num_done:,}.")
                return True
            reasons.append(reason or f"{path} is damaged for another process")
        if reasons:
            hint = "Nothing was changed; train into another folder."
            raise ValueError(f"{run.where}: the checkpoint {reasons[0]}. {hint}")
        return False

    def _check_same(self, state: dict[str, Any]) -> None:
        """Raise unless the checkpoint is of this data and these settings."""
        run, other = self.run, "or train into another folder."
        for name, value in dataclasses.asdict(run.settings).items():
            theirs = state["settings"].get(name)
            if name not in FREE and theirs != value:
                hint = f"Resume with the settings of the run, {other}"
                raise ValueError(sentence(run.where, name, f"{theirs!r} as in {self.path}", repr(value), hint))
        if state["fingerprint"] != run.fingerprint:
            hint = f"Resume with the same data, {other}"
            raise ValueError(sentence(run.where, "data", f"those of the run in {self.path}", "others", hint))
        processes = int(state["plan"]["processes"])
        if processes != run.place.size:
            want = f"{processes} as in {self.path}"
            raise ValueError(sentence(run.where, "the number of processes", want, run.place.size))

    def _take(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Become the run of a checkpoint."""
        run = self.run
        run.plan.clear()
        run.plan.update(state["plan"])
        run.prepare()
        device = run.place.device
        run.module.load_state_dict(checkpoint.below_prefix("weights", tensors))
        if run.average is not None:
            found = checkpoint.below_prefix("average", tensors)
            run.average = {name: found[name].to(device) for name in run.average}
        run.history[:] = state["history"]
        run.memo.clear()
        run.memo.update(state["memo"])
        run.num_done, run.num_stops, run.worse = state["num_done"], state["num_stops"], state["worse"]
        run.epoch, run.chunk = state["position"]
        run.recent = (state["recent"][0], state["recent"][1])
        run.stopped = "" if state["stopped"] in STOPPED_FROM_OUTSIDE else state["stopped"]
        if state["best"] is not None:
            weights = {n: t.to(device) for n, t in checkpoint.below_prefix("best", tensors).items()}
            run.best = (*state["best"], weights)
        run.updater.unpack(state["optimizer"], tensors)
        if run.plan["threads"] != torch.get_num_threads():
            now = f"{torch.get_num_threads()} threads instead of {run.plan['threads']}"
            run.note(f"The run goes on with {now}: its numbers may differ in the last digits.")

    def _take_own(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """The part that each process has for itself."""
        run = self.run
        run.carry = None
        if state["carry"] != {"value": None}:
            run.carry = checkpoint.unpack(state["carry"], tensors, self._carry_classes(), run.place.device)
        run.rng = checkpoint.unpack(state["rng"], tensors)
        set_random_state(run.rng)

    def _carry_classes(self) -> dict[str, type]:
        """The NamedTuples that the rule's carry is made of: at the beginning, and after a step."""
        run = self.run
        chunk = run.place.mine(next(iter(run.data.epoch(run.epoch))), run.loss)
        assert chunk is not None
        first = run.rule.init(run.module, int(tree.leaves(chunk.xs)[0].shape[1]))
        with run.place.autocast():
            second, _ = run.rule.step(run.module, first, chunk, run.loss)
        return checkpoint.classes_in((first, wide(second, torch.float32)))


def random_state() -> tuple[Tensor, ...]:
    """The state of torch's own generators."""
    state = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state.append(torch.cuda.get_rng_state())
    return tuple(state)


def set_random_state(state: tuple[Tensor, ...]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state[0])
    if len(state) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[1])
