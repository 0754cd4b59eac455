"""How feedback is judged: the paper's metrics, and planted faults."""
