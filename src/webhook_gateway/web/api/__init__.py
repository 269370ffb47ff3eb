"""The JSON API: a request of a known caller comes in, a typed answer or a problem (RFC 9457) goes out."""
