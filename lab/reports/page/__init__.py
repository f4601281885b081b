"""The page itself: the first screen, an article, templates as HTML."""
