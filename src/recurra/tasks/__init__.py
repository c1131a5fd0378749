"""Generated data whose optimum is known. Every task takes a generator."""
