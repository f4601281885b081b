"""The studies: a folder each, from the command to the page. What a study is: `lab.studies.base`."""
