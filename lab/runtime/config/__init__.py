"""The OCI runtime configuration (config.json): its records, how they are read, and what makes one valid."""
