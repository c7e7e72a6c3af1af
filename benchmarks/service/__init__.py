"""The service under load: latency, throughput with and without batching, and a soak."""
