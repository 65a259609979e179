"""Messages of a model's own types: records and rows out of input messages, predictions into output messages."""
