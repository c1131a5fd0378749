"""Published experiments, one file each, named after their rows."""
