"""A checklist of yes-or-no questions and what the answers are worth, after VisionReward."""
