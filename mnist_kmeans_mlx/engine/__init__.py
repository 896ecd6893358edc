"""The mathematics of K-means: arrays in, arrays out."""
