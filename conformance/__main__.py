"""``python -m conformance`` is ``loss-conformance``."""

import sys

from conformance.cli import main

sys.exit(main())
