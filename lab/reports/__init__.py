"""Reports, rebuilt from a run folder alone: anywhere, without root, without a hypervisor, without a network."""
