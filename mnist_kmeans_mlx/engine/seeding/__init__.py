"""Where centres start: `start` draws rows, by `sampling`, a way's k-means++ or `parallel`."""
