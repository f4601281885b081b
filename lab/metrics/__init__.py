"""What is measured: a metric for each thing, which knows no backend."""
