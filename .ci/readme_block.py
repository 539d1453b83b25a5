"""Print the command under a marker of README.md, so that what users read is what is tested.

    python3 .ci/readme_block.py main-job

prints the fenced block that follows the line ``<!-- ci: main-job -->``.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def block(name: str, text: str) -> str:
    """The fenced block right after the marker; exactly one must be there."""
    pattern = rf"^<!-- ci: {re.escape(name)} -->\n+```\w*\n(.*?)^```$"
    found = re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        sys.exit(f"README.md has {len(found)} blocks marked <!-- ci: {name} -->, but expected one.")
    return str(found[0])


if __name__ == "__main__":
    print(block(sys.argv[1], README.read_text("utf-8")), end="")
