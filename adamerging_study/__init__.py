"""The study that the book shows: one folder per experiment, what was measured, how sure it is, which claims hold."""
