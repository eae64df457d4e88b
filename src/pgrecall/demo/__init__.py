"""A sprint-planning simulator: an agent decides, the world answers, the memory remembers.

``world`` makes situations, ``agent`` decides, ``outcomes`` works out what follows, ``run`` plays
an agent with the memory and one without through the same situations, ``present`` shows it.
"""

from pgrecall.demo.run import DemoResult, Step, play

__all__ = ["DemoResult", "Step", "play"]
