"""A fixture of the tests of diagrams."""

import matplotlib
import pytest


@pytest.fixture
def axis():
    """Axes that nothing is drawn on yet."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)
