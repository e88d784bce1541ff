"""What the chart's hooks do: make keys once, put the admission policies in last, take them out first."""
