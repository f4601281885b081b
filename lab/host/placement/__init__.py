"""Which CPUs of a host are whose while something is measured: lab's, its client's, the instances'."""
