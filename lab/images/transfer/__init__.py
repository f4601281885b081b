"""Images on their way in and out: registries, archives, tars, downloads, and the troubles of networks and proxies."""
