"""The operator table: the only place that knows what an operator means."""
