"""The ideas: cell, engine, rule, memory, experiment, and what they are made of."""

from . import tree
from .catalog import find, members
from .cell import (
    RK4,
    Cell,
    CompetitiveCell,
    CompositeCell,
    ConstrainedCell,
    ContinuousCell,
    Euler,
    FeedbackCell,
    HoistedCell,
    JoinCell,
    LinearCell,
    MembersCell,
    Noisy,
    PointwiseCell,
    ReadoutCell,
    Solver,
    StochasticCell,
    Timed,
    VendorCell,
    VendorWeights,
)
from .controls import Controls
from .engine import Engine
from .experiment import Claim, Experiment, Log
from .loss import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError, SequenceLoss
from .memory import AssociativeMemory, EnergyMemory, ErasableMemory, PairMemory, Recall
from .rule import Chunk, Estimate, LearningRule, SearchRule, Trace
from .spec import Leaf
from .spins import SpinDynamics, SpinSystem, configurations

__all__ = [
    "RK4",
    "AssociativeMemory",
    "BinaryCrossEntropy",
    "Cell",
    "Chunk",
    "Claim",
    "CompetitiveCell",
    "CompositeCell",
    "ConstrainedCell",
    "ContinuousCell",
    "Controls",
    "CrossEntropy",
    "EnergyMemory",
    "Engine",
    "ErasableMemory",
    "Estimate",
    "Euler",
    "Experiment",
    "FeedbackCell",
    "HoistedCell",
    "JoinCell",
    "Leaf",
    "LearningRule",
    "LinearCell",
    "Log",
    "Loss",
    "MeanSquaredError",
    "MembersCell",
    "Noisy",
    "PairMemory",
    "PointwiseCell",
    "ReadoutCell",
    "Recall",
    "SearchRule",
    "SequenceLoss",
    "Solver",
    "SpinDynamics",
    "SpinSystem",
    "StochasticCell",
    "Timed",
    "Trace",
    "VendorCell",
    "VendorWeights",
    "configurations",
    "find",
    "members",
    "tree",
]
