"""Weight matrices: by name, for every cell."""

from .initializers import chrono_, fill, matrix, names, spectral_radius, vector

__all__ = ["chrono_", "fill", "matrix", "names", "spectral_radius", "vector"]
