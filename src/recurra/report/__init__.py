"""Pictures and the page that a run leaves."""

from .page import Page
from .write import write_report

__all__ = ["Page", "write_report"]
