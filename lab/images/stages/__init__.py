"""Building: a stage's story (`stage`), what its instructions do (`…_step`), and what stages share meanwhile."""
