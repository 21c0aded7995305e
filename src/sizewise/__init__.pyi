"""What ``sizewise`` offers to programs; loaded when it is first asked for."""

from sizewise.errors import SizewiseError as SizewiseError
from sizewise.interface import Results as Results
from sizewise.interface import RunResult as RunResult
from sizewise.interface import compare as compare
from sizewise.interface import run as run
from sizewise.interface import sweep as sweep

__version__: str
