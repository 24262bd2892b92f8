"""The world of text: procedural tasks over generated English sentences and a BERT of our own."""
