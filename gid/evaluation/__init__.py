"""How motion is judged: metrics, baselines, reports and sheets."""
