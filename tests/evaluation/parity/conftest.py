"""The narrow bundle as a chain and as a side of a comparison."""

import pytest

from showface.evaluation.parity.sources import source_of_bundle
from showface.runtime.backends import open_chain
from showface.runtime.bundle import open_bundle


@pytest.fixture(scope="module")
def narrow_chain(narrow_bundle):
    return open_chain(open_bundle(narrow_bundle), "auto", "cpu", 2)


@pytest.fixture(scope="module")
def narrow_source(narrow_bundle, narrow_chain):
    return source_of_bundle(open_bundle(narrow_bundle), narrow_chain)
