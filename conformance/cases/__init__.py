"""What is tried: cases as data, and which of them a profile runs."""
