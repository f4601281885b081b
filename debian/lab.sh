#!/bin/sh
# What Python is told by the environment is meant for another Python than lab's own.
unset PYTHONHOME PYTHONPATH
exec /usr/lib/lab/bin/lab "$@"
