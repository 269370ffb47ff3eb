"""The only outgoing HTTP: a request comes in, an `Exchange` goes out, whatever the partner does."""
