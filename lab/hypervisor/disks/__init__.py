"""Machines that boot a disk of the user's, of whose contents lab knows nothing.

qcow2.py     what a disk's header says of other files
own.py       which files a disk consists of, named by the user or refused
machine.py   the story: overlay → domain → start → stop
"""
