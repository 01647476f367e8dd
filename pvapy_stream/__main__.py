"""``python -m pvapy_stream``: the command ``pvapy-stream``, wherever scripts are."""

import sys

from pvapy_stream.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
