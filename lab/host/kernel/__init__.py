"""Parts of the kernel with an interface of their own: settings, page cache, filters, device guards, tracefs."""
