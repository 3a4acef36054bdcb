"""What breaks when neurons are silenced: interventions, their controls, fast reruns, and what they do to a probe."""
