"""OCI images: their store, Dockerfile builds, transfers, and disks."""
