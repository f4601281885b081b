"""One more command in an instance: the contract, its streams, its terminal."""
