"""The synchronous client, generated from the asynchronous one; ``runtime.py`` is by hand."""
