"""``python -m showface.training``: the same as ``showface train``."""

from showface.runtime.cli import main

if __name__ == "__main__":
    main(["train"])
