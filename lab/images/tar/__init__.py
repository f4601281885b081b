"""Archives and layer blobs that nobody vouches for: read as streams, bounded, unpacked below descriptors."""
