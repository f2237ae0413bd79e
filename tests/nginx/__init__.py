"""The edge templates, under the real programs wherever these can be had."""
