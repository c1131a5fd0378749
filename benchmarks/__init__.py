"""Measured claims: ``python -m benchmarks`` runs every module of this folder that has a ``run`` and writes BENCHMARKS.md."""
