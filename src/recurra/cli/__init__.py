"""The ``recurra`` command: one file per command; what is heavy is imported inside them."""
