"""What an agent's process tells about itself: metrics, log records and traces.

Every operation of the client passes one point, ``operations.Operation``, which tells those who
were chosen when the memory was opened. What is switched off is not even imported.
"""
