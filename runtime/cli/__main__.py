"""``python -m showface.runtime.cli``: the same as ``showface``."""

from . import main

main()
