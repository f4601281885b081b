"""A machine as libvirt has it: the connection, a domain in XML, its start, and a folder that libvirt will have."""
