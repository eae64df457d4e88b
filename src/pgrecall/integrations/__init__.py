"""The memory behind interfaces that agents are already written against: one file for each."""
