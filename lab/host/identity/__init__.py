"""Who lab is on this host: root, or an ordinary user in a namespace of its own; and files that are its alone."""
