"""Networks in other languages: C99 for microcontrollers, audio threads and readers."""

from .c import Exported, to_c

__all__ = ["Exported", "to_c"]
