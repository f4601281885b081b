"""What of the host an experiment may vary from instance to instance: a module per factor, found by itself."""
