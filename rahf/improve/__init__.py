"""What rich feedback is for: better pictures. A generator behind one interface, and the tools that use the feedback."""
