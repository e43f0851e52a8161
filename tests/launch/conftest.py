from __future__ import annotations

import sys
from pathlib import Path

# The fake task is also imported by Ray's worker processes, so it is a plain module found by its name.
sys.path.append(str(Path(__file__).parent))
