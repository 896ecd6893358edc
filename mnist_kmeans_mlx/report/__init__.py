"""Results, timings and centroids for people to read."""
