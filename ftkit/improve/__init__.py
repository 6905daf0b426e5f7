"""From a log of answers in service to a better model: read, filtered, tuned on, and promoted if it is better."""
