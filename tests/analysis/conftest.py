"""The tests of the analysis share the synthetic results folders of tests/report."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
