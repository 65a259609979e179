"""How a call is run: in time, off the event loop, from text to text."""
