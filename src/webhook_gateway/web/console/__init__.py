"""The console, at ``/console``: a person's request comes in, a page goes out; what is done, `operations` do."""
