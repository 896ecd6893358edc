"""Results, timings and centroids as people read them."""
