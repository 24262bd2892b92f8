"""The study: what makes the book from measurements."""
