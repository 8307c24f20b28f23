"""From raw tables to a trained Keras model: prepare on Spark, feed by Petastorm, train with Keras, score on Spark."""

__version__ = "0.1.0"
__all__ = ["__version__"]
