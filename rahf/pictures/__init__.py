"""The judge of real pictures: heads on the shared encoder, words, and the feedback made of both."""
