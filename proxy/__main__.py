"""``python -m proxy`` is ``sse-sidecar``."""

import sys

from proxy.cli import main

sys.exit(main())
