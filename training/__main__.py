"""``python -m showface.training``: the same as ``showface train``."""

from showface.cli import main

if __name__ == "__main__":
    main(["train"])
