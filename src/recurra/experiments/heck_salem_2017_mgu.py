"""Heck and Salem 2017: minimal gated units with less and less in their gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from ..cells import MGU1Cell, MGU2Cell, MGU3Cell, MGUCell
from ..core import Claim, Experiment, Log
from .digits import LastStep, Recipe, accuracy, digits, learn, num_parameters, pixels, rows
from .prediction import Stages

_UNITS = {"mgu": MGUCell, "mgu1": MGU1Cell, "mgu2": MGU2Cell, "mgu3": MGU3Cell}


@dataclass(frozen=True)
class HeckSalem2017MGU(Experiment):
    """Handwritten digits read row by row: a gate without the input, or without a bias, does as well.

    Args:
        hidden_size: H.
        num_epochs: passes through the training pictures.
        batch_size: pictures in an update.
        lr: Adam's largest learning rate.
        pixel_side: pictures of the control are averaged down to this side and read pixel by pixel.
        pixel_updates: updates of the control.
        pixel_batch_size: pictures in an update of the control.
        pixel_lr: Adam's largest learning rate in the control.
        seed: of weights and order.
        stand_in: made-up pictures in place of the files.
    Source:
        Heck & Salem 2017, "Simplified minimal gated unit variations for recurrent neural networks", arXiv:1701.03452
        (abstract read; settings from memory)
    Differs:
        Adam with a falling rate. The pictures that are read pixel by pixel are averaged down to 14 x 14. One seed; the test
        pictures are used once, after the last update. The abstract says that MGU2 did better than MGU; that is printed as
        a difference and not held against a bar.
    """

    id: ClassVar[str] = "heck-salem-2017-mgu"
    source: ClassVar[str] = "Heck & Salem 2017, arXiv:1701.03452"
    requires: ClassVar[tuple[str, ...]] = ("mnist",)
    claims: ClassVar[tuple[Claim, ...]] = (
        *(
            Claim(f"rows_{name}_accuracy", 98.5, "higher", "'similar accuracy'", "abstract", "own bar")
            for name in _UNITS
        ),
        Claim("rows_mgu1_behind_mgu", 0.3, "lower", "'similar accuracy'", "abstract", "own bar"),
        Claim("rows_mgu2_behind_mgu", 0.3, "lower", "'performed better than MGU'", "abstract", "own bar"),
        Claim("parameters_wrong", 0, "lower", "fewer by HD, HD + H, HD + H^2", "equations", "theorem"),
        Claim("pixels_mgu3_behind_mgu2", 5.0, "higher", "worse", "pixel by pixel", "from memory", control=True),
    )

    hidden_size: int = 100
    num_epochs: int = 10
    batch_size: int = 32
    lr: float = 4e-3
    pixel_side: int = 14
    pixel_updates: int = 1000
    pixel_batch_size: int = 64
    pixel_lr: float = 5e-3
    seed: int = 0
    stand_in: bool = False

    @classmethod
    def smoke(cls) -> Self:
        """Made-up pictures, a few updates."""
        return cls(hidden_size=8, num_epochs=1, pixel_side=7, pixel_updates=2, pixel_batch_size=32, stand_in=True)

    def run(self, log: Log) -> Mapping[str, float]:
        """Four units on rows, two of them on pixels."""
        data = digits(stand_in=self.stand_in)
        shares = {f"rows {name}": 1.0 for name in _UNITS} | {f"pixels {name}": 0.7 for name in ("mgu2", "mgu3")}
        stages = Stages(log, shares)
        metrics: dict[str, float] = {}
        wrong = 0
        updates = self.num_epochs * (len(data.train_labels) // self.batch_size)
        for name, unit in _UNITS.items():
            torch.manual_seed(self.seed)
            cell = unit(28, self.hidden_size, recurrent_init="orthogonal")
            wrong += num_parameters(cell) != expected_parameters(name, 28, self.hidden_size)
            net = LastStep(cell)
            recipe = Recipe(self.batch_size, updates, self.lr)
            learn(
                net, rows(data.train_images), data.train_labels, recipe, seed=self.seed, progress=stages(f"rows {name}")
            )
            metrics[f"rows_{name}_accuracy"] = accuracy(net, rows(data.test_images), data.test_labels)
            metrics[f"rows_{name}_parameters"] = num_parameters(cell)
        for name in ("mgu1", "mgu2", "mgu3"):
            metrics[f"rows_{name}_behind_mgu"] = metrics["rows_mgu_accuracy"] - metrics[f"rows_{name}_accuracy"]
        metrics["parameters_wrong"] = wrong
        train, test = pixels(data.train_images, self.pixel_side), pixels(data.test_images, self.pixel_side)
        for name in ("mgu2", "mgu3"):
            torch.manual_seed(self.seed)
            net = LastStep(_UNITS[name](1, self.hidden_size))
            recipe = Recipe(self.pixel_batch_size, self.pixel_updates, self.pixel_lr)
            learn(net, train, data.train_labels, recipe, seed=self.seed, progress=stages(f"pixels {name}"))
            metrics[f"pixels_{name}_accuracy"] = accuracy(net, test, data.test_labels)
        metrics["pixels_mgu3_behind_mgu2"] = metrics["pixels_mgu2_accuracy"] - metrics["pixels_mgu3_accuracy"]
        return metrics


def expected_parameters(name: str, inputs: int, units: int) -> int:
    """As the equations have it: the full unit, less what the gate does not see."""
    full = 2 * (units * units + units * inputs + units)
    spared = {"mgu": 0, "mgu1": units * inputs, "mgu2": units * inputs + units, "mgu3": units * inputs + units * units}
    return full - spared[name]
