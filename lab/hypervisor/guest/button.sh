#!/bin/busybox sh
# What acpid calls when the power button was pressed (bootdisk.py packs it as /lab/acpi/PWRF/00000080): the image's
# command gets its stop signal, $GRACE_SECONDS to obey it, and SIGKILL. Its end is the machine's, see bootdisk.sh.

. /lab/settings
until pid=$(cat /lab/pid 2>/dev/null); do usleep 100000; done # the system may still be starting
kill -s "$STOP_SIGNAL" "$pid"
sleep "$GRACE_SECONDS"
kill -s KILL "$pid"
