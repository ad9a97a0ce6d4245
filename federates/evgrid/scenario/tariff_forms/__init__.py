"""Forms of a tariff, a file each."""
