"""What chance alone would give: shuffled labels, clips drawn anew, corrected p-values."""
