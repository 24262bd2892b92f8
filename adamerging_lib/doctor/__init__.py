"""A doctor before the merge: what is wrong with experts, what to do about it, and which method to take."""
