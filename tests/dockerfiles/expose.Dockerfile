#: Ports, protocols.
FROM corpus
EXPOSE 80 443/tcp 53/udp
EXPOSE 9/sctp
