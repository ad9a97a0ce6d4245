"""The aggregator: charging strategies and the federate that runs them."""
