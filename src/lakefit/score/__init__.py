"""`score`: new raw rows through source and clean on Spark, then through the exported model."""
