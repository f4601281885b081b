"""How a comparison is measured; `experiment.py` is the story."""
