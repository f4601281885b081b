"""Images on their way in and out: registries, archives, tars, downloads, and what networks and proxies get wrong."""
