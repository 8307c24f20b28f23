"""What is current and what is not, the stages in order, the lock, run.json."""
