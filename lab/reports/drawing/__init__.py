"""Charts, drawn once: each kind of panel is painted by one function, for paper and for the page alike.

`lab.reports.charts` says what is in a panel; a painter puts it onto axes whose vertical unit is the point, so that a
row is as high as its words need. `picture` sets a chart's panels side by side for PNG and SVG; `inline` gives each
panel as an SVG of its own for the page, in which every mark is a group that says its numbers. The page's script
points at these groups, moves rows together and stretches axes; it draws no mark.
"""

from lab.reports.drawing.inline import inline
from lab.reports.drawing.picture import composed, picture, projected
from lab.reports.drawing.sheet import looks_of

__all__ = ["composed", "inline", "looks_of", "picture", "projected"]
