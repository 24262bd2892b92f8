"""The study that the book shows: what was measured, how sure it is, and which claims hold."""
