"""``python -m recurra``, and ``torchrun -m recurra``: the ``recurra`` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
