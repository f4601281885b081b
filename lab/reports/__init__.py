"""What every page is made of: tables, charts, figures, words, exports, and the page itself."""
