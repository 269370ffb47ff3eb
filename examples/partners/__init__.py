"""Sample partners: each receives callbacks, verifies them with an independent library and does its part."""
