"""``python -m showface.cli``: the same as ``showface``."""

from . import main

main()
