"""What forecasting needs around a network: measures, seasons, windows, baselines, backtests."""

from .backtest import Backtest, backtest
from .forecast import Forecast
from .measures import coverage, mae, mase, pinball_loss, rmse, smape
from .seasons import Season, find_seasons

__all__ = [
    "Backtest",
    "Forecast",
    "Season",
    "backtest",
    "coverage",
    "find_seasons",
    "mae",
    "mase",
    "pinball_loss",
    "rmse",
    "smape",
]
