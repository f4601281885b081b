"""A figure's headline has room of its own, however tall the figure is."""

from __future__ import annotations

import pytest

from lab.reports import style


@pytest.mark.parametrize("height", [4.0, 9.6, 25.0])
@pytest.mark.parametrize("subtitle", ["", "how to read it"])
def test_nothing_of_the_figure_lies_below_its_headline(height: float, subtitle: str) -> None:
    with style.canvas(14.2, height, nrows=2, ncols=1) as (figure, panels):
        for axes in panels:
            axes.set_title("what this panel shows")
            axes.plot([1, 2])
        style.headline(figure, "What is found", subtitle)
        figure.canvas.draw()
        written = [text.get_window_extent() for text in figure.texts]
        assert len(written) == 1 + bool(subtitle)
        for axes in panels:
            assert axes.get_tightbbox().y1 < min(box.y0 for box in written)
        assert max(box.y1 for box in written) <= figure.bbox.y1
