"""Laws of what files say they hold: one file per question, on files made by hand."""
