"""Other people's models of this paper, made to run through this project's pipeline, tabs and motion files."""
