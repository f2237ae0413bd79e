"""What only time and repetition show: leaks, races, and bounds that do not hold."""
