"""The screens, started as `binsight app` starts them: python gradio_app.py --store parts.store."""

import sys

from binsight.cli import run

if __name__ == "__main__":
    sys.exit(run(["app", *sys.argv[1:]]))
