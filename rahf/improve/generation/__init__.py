"""The generators behind `rahf.improve.generator`: prompts, schedules, windows, and the calls of pipelines."""
