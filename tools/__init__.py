"""What builds the documents: hooks of mkdocs, what docstrings say, the picture of the packages."""
