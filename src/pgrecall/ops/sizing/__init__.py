"""How much memory, disk and time a memory needs, on this machine and with these vectors."""

from pgrecall.ops.sizing.measuring import Now, Sample, measure
from pgrecall.ops.sizing.plan import Way, ways

__all__ = ["Now", "Sample", "Way", "measure", "ways"]
