"""A static site of all results: pages, data that they load as scripts, and a feed; see docs/publishing.md."""
