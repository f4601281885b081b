"""A network of lab's own for one session; the host's interfaces, routes and firewall are never changed.

namespace.py   anonymous network namespaces, held by a descriptor
links.py       bridge, veth and tap, the only import of pyroute2
network.py     the story: one namespace with a bridge, and an endpoint on it per instance
publish.py     a port of 127.0.0.1 on the host that leads into it
"""
