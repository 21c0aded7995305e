"""One job, put together from the parts: data, base, adapter, scores, record."""
