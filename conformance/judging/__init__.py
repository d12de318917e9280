"""What is right: asks the reference, compares, names the clause and the cause."""
