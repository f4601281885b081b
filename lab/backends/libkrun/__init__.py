"""libkrun: where it comes from, what its machine is told, how its process is started and shut in."""
