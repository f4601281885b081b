"""Building: the story of a stage (`stage`), its instructions (`…_step`), and the parts that stages share."""
