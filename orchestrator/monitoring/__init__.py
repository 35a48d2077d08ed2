"""What an operator watches: the metrics of all processes, every name once."""
