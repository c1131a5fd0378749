"""Learning rules: how a stretch of a stream becomes a direction for the parameters."""

from .bptt import BPTT, TruncatedBPTT
from .bucket_brigade import NeuralBucketBrigade
from .crbp import CRBP
from .eprop import EProp
from .evolution import EvolutionStrategy, search
from .hessian_free import GaussNewton, HessianFree, conjugate_gradients
from .hybrid import HybridRTRL
from .kalman import EKF, Anneal
from .kf_rtrl import KFRTRL
from .least_squares import FORCE, RLS
from .local import BCM, Hebb, Oja
from .nobacktrack import NoBackTrack
from .omega import Regularised, errors_along_time, omega
from .online import Online, OnlineState, OnlineTrace
from .rflo import RFLO
from .rtrl import RTRL, SnAp
from .signal_flow_adjoint import SignalFlowAdjoint
from .uoro import UORO
from .updates import SGD, Adam, Sum, UpdateRule

__all__ = [
    "BCM",
    "BPTT",
    "CRBP",
    "EKF",
    "FORCE",
    "KFRTRL",
    "RFLO",
    "RLS",
    "RTRL",
    "SGD",
    "UORO",
    "Adam",
    "Anneal",
    "EProp",
    "EvolutionStrategy",
    "GaussNewton",
    "Hebb",
    "HessianFree",
    "HybridRTRL",
    "NeuralBucketBrigade",
    "NoBackTrack",
    "Oja",
    "Online",
    "OnlineState",
    "OnlineTrace",
    "Regularised",
    "SignalFlowAdjoint",
    "SnAp",
    "Sum",
    "TruncatedBPTT",
    "UpdateRule",
    "conjugate_gradients",
    "errors_along_time",
    "omega",
    "search",
]
