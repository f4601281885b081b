"""The supervisor's program."""

from __future__ import annotations

import sys

from lab.supervisor.supervise import main

sys.exit(main(sys.argv[1:]))
