"""Where a stage runs: this process or Spark; the session, its settings, its Java."""
