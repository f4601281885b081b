#: differs set-uid-bits file:/modes/setuid file:/modes/group
#: Modes stay, set-uid and sticky ones too; owners become root.
FROM corpus
COPY modes /modes
